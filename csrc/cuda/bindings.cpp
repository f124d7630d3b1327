// Python bindings of the GPU kernels; the other files in this folder do not depend on Python. Arrays are passed as
// addresses in the memory of the stream's device. destseg/ops allocates and validates them. Counts and sizes are
// checked again here, because that is cheap; whether as much memory lies at an address cannot be checked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "kernels.h"

namespace py = pybind11;
namespace cuda = destseg::cuda;

namespace {

using Address = uintptr_t;
using Place = std::pair<int, Address>;                               // device number, address of the stream
using Level = std::tuple<Address, Address, std::array<int64_t, 3>>;  // taught, learnt, (c, h, w)

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// count: how many things are there. If there are none, the address is not used.
template <typename T>
T* at(Address address, int64_t count) {
  require(address != 0 || count == 0, "addresses must not be 0");
  return reinterpret_cast<T*>(address);
}

// Kernels count rows, columns and channels in 32 bits, by up to 64 at a time.
constexpr int64_t kMost = INT32_MAX - 64;

void require_sides(std::initializer_list<int64_t> sides) {
  for (const int64_t side : sides) require(side > 0 && side <= kMost, "sides must be in [1, 2^31 - 64)");
}

cuda::Type type_of(const std::string& name) {
  if (name == "float32") return cuda::Type::float32;
  if (name == "float16") return cuda::Type::float16;
  require(name == "bfloat16", "values must be float32, float16 or bfloat16");
  return cuda::Type::bfloat16;
}

cuda::Stream stream_of(const Place& place) { return {place.first, place.second}; }

void similarity_input(const std::vector<Level>& levels, int64_t n, const std::string& type, Address products,
                      const std::string& out_type, Address out, const Place& place) {
  require(!levels.empty(), "there must be levels");
  cuda::FeaturesOf features{{}, n, type_of(type)};
  for (const auto& [taught, learnt, size] : levels) {
    const auto [channels, height, width] = size;
    require_sides({channels, height, width});
    require(n >= 0, "the number of pictures must not be negative");
    require(n <= kMost / (height * width), "too many positions for one call");
    features.levels.push_back({at<const void>(taught, n), at<const void>(learnt, n), channels, height, width});
  }
  cuda::similarity_input(features, at<float>(products, 0), type_of(out_type), at<void>(out, n), stream_of(place));
}

// Returns the table that `corrupt` takes, as bytes. A row is (rotation in radians, cells_y, cells_x, share).
py::bytes anomalies(const std::vector<std::tuple<double, int64_t, int64_t, float>>& rows) {
  std::vector<cuda::Anomaly> table;
  int64_t first = 0;
  for (const auto& [rotation, cells_y, cells_x, share] : rows) {
    require_sides({cells_y, cells_x});
    require(std::isfinite(rotation), "rotations must be finite");
    table.push_back({std::cos(rotation), std::sin(rotation), cells_y, cells_x, first, share});
    const int64_t points = (cells_y + 1) * (cells_x + 1);
    require(points <= kMost - first, "anomalies must have fewer than 2^31 - 64 angles together");
    first += points;
  }
  return {reinterpret_cast<const char*>(table.data()), table.size() * sizeof(cuda::Anomaly)};
}

void corrupt(Address pictures, Address textures, Address table, Address angles, int64_t angle_count, Address gradients,
             std::array<int64_t, 3> size, float threshold, std::array<float, 3> scale, std::array<float, 3> offset,
             Address corrupted, Address masks, const Place& place) {
  const auto [n, height, width] = size;
  require_sides({height, width});
  require(n >= 0 && n <= kMost && height * width <= kMost, "a picture must have fewer than 2^31 - 64 pixels");
  require(angle_count >= 0 && angle_count <= kMost, "anomalies must have fewer than 2^31 - 64 angles together");
  cuda::corrupt(at<const uint8_t>(pictures, n), at<const uint8_t>(textures, n), at<const cuda::Anomaly>(table, n), n,
                at<const float>(angles, angle_count), angle_count, at<float>(gradients, angle_count), threshold,
                {scale[0], scale[1], scale[2]}, {offset[0], offset[1], offset[2]}, height, width,
                at<float>(corrupted, n), at<uint8_t>(masks, n), stream_of(place));
}

}  // namespace

PYBIND11_MODULE(_C_cuda, module) {
  module.doc() = "destseg's kernels for NVIDIA GPUs; call them through destseg.ops, which validates.";
  module.def("similarity_input", &similarity_input, py::arg("levels"), py::arg("n"), py::arg("type"),
             py::arg("products"), py::arg("out_type"), py::arg("out"), py::arg("place"));
  module.def("anomalies", &anomalies, py::arg("rows"));
  module.def("corrupt", &corrupt, py::arg("pictures"), py::arg("textures"), py::arg("table"), py::arg("angles"),
             py::arg("angle_count"), py::arg("gradients"), py::arg("size"), py::arg("threshold"), py::arg("scale"),
             py::arg("offset"), py::arg("corrupted"), py::arg("masks"), py::arg("place"));
}

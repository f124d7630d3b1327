// The only file that knows Python. Arrays arrive allocated and validated by destseg/ops; they are never
// copied or converted on the way (noconvert), and the interpreter's lock is free while a kernel runs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "components.h"
#include "perlin.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

// What would corrupt memory if it were otherwise; the message is for whoever calls past destseg/ops.
void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <typename T>
void perlin(const Array<T>& angles, double rotation, Array<T>& noise) {
  require(angles.ndim() == 2 && angles.shape(0) > 1 && angles.shape(1) > 1, "angles must be at least 2 x 2");
  require(noise.ndim() == 2, "noise must be (h, w)");
  const T* in = angles.data();
  T* out = noise.mutable_data();
  const int64_t cells_y = angles.shape(0) - 1, cells_x = angles.shape(1) - 1;
  const int64_t height = noise.shape(0), width = noise.shape(1);
  py::gil_scoped_release unlocked;
  destseg::perlin(in, cells_y, cells_x, rotation, height, width,
                  [&](int64_t i, const T* row) { std::copy(row, row + width, out + i * width); });
}

// lattices: the angles of all samples, one after the other; cells: (n, 2) how many along rows and columns.
void corrupt(const Array<uint8_t>& pictures, const Array<uint8_t>& textures, const Array<float>& lattices,
             const Array<int64_t>& cells, const Array<double>& rotations, const Array<float>& shares,
             float threshold, const Array<float>& scale, const Array<float>& offset, int64_t threads,
             Array<float>& corrupted, Array<uint8_t>& masks) {
  require(pictures.ndim() == 4 && pictures.shape(3) == 3, "pictures must be (n, h, w, 3)");
  const int64_t n = pictures.shape(0), height = pictures.shape(1), width = pictures.shape(2);
  require(textures.size() == pictures.size() && corrupted.size() == pictures.size(), "sizes must agree");
  require(masks.size() * 3 == pictures.size(), "masks must be (n, h, w)");
  require(cells.size() == 2 * n && rotations.size() == n && shares.size() == n, "one anomaly a picture");
  require(scale.size() == 3 && offset.size() == 3, "scale and offset must have three channels");
  std::vector<destseg::Corruption> corruptions;
  int64_t used = 0;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t cells_y = cells.data()[2 * k], cells_x = cells.data()[2 * k + 1];
    require(cells_y > 0 && cells_x > 0, "cells must be positive");
    corruptions.push_back({lattices.data() + used, cells_y, cells_x, rotations.data()[k], shares.data()[k]});
    used += (cells_y + 1) * (cells_x + 1);
  }
  require(used == lattices.size(), "lattices must hold (cells_y + 1) * (cells_x + 1) angles a sample");
  float* corrupted_out = corrupted.mutable_data();
  uint8_t* masks_out = masks.mutable_data();
  py::gil_scoped_release unlocked;
  destseg::corrupt(pictures.data(), textures.data(), corruptions, threshold, scale.data(), offset.data(), height,
                   width, threads, corrupted_out, masks_out);
}

// Returns the sizes, whose number only the kernel knows.
Array<int64_t> components(const Array<uint8_t>& masks, bool corners, Array<int32_t>& labels) {
  require(masks.ndim() == 3 && labels.size() == masks.size(), "masks and labels must be (n, h, w)");
  const int64_t n = masks.shape(0), height = masks.shape(1), width = masks.shape(2);
  require(height * (width + 1) < INT32_MAX, "a mask must have fewer than 2^31 pixels");
  const uint8_t* in = masks.data();
  int32_t* out = labels.mutable_data();
  std::vector<int64_t> sizes;
  {
    py::gil_scoped_release unlocked;
    sizes = destseg::components(in, n, height, width, corners, out);
  }
  return Array<int64_t>(static_cast<py::ssize_t>(sizes.size()), sizes.data());
}

template <typename T>
void bind_for_dtype(py::module_& module) {
  module.def("perlin", &perlin<T>, py::arg("angles").noconvert(), py::arg("rotation"),
             py::arg("noise").noconvert());
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of destseg; call them through destseg.ops, which validates.";
  bind_for_dtype<float>(module);
  bind_for_dtype<double>(module);
  module.def("corrupt", &corrupt, py::arg("pictures").noconvert(), py::arg("textures").noconvert(),
             py::arg("lattices").noconvert(), py::arg("cells").noconvert(), py::arg("rotations").noconvert(),
             py::arg("shares").noconvert(), py::arg("threshold"), py::arg("scale").noconvert(),
             py::arg("offset").noconvert(), py::arg("threads"), py::arg("corrupted").noconvert(),
             py::arg("masks").noconvert());
  module.def("components", &components, py::arg("masks").noconvert(), py::arg("corners"),
             py::arg("labels").noconvert());
}

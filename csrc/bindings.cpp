// The only file that knows Python. Arrays arrive allocated and validated by destseg/ops; they are never
// copied or converted on the way (noconvert), and the interpreter's lock is free while a kernel runs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>

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
  destseg::perlin(in, cells_y, cells_x, rotation, height, width, out);
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
}

// Python bindings of the CPU kernels; the other files here do not depend on Python. destseg/ops allocates and
// validates all arrays. They are neither copied nor converted on the way in (noconvert). The GIL is released while
// a kernel runs.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <numeric>
#include <stdexcept>
#include <utility>
#include <vector>

#include "components.h"
#include "cosine.h"
#include "destmap.h"
#include "perlin.h"
#include "ranking.h"
#include "similarity.h"

namespace py = pybind11;

namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

using Arrays = std::vector<Array<float>>;
using List = py::typing::List<Array<float>>;

// From a list, not from any sequence: an array is one, too, and may be empty and still have billions of items.
Arrays arrays_of(const List& list) {
  Arrays arrays;
  for (const py::handle& item : list) {
    if (!py::isinstance<Array<float>>(item)) throw py::type_error("lists must hold contiguous arrays of float32");
    arrays.push_back(py::reinterpret_borrow<Array<float>>(item));
  }
  return arrays;
}

// Checks what would otherwise corrupt memory or never end. Only callers that bypass destseg/ops ever see the message.
void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <typename T>
void require_alignment(const Array<T>& array) {
  const bool aligned = reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0;
  require(aligned || array.size() == 0, "arrays must be aligned to the size of their items");
}

template <typename T>
const T* readable(const Array<T>& array) {
  require_alignment(array);
  return array.data();
}

template <typename T>
T* writable(Array<T>& array) {
  require_alignment(array);
  return array.mutable_data();
}

// Kernels count rows and columns in 32 bits, by up to 64 at a time.
constexpr int64_t kLongestSide = INT32_MAX - 64;

void require_sides(std::initializer_list<int64_t> sides) {
  for (const int64_t side : sides) require(side <= kLongestSide, "sides must be shorter than 2^31 - 64");
}

int64_t product(std::initializer_list<int64_t> sizes) {
  int64_t total = 1;
  for (const int64_t size : sizes) {
    require(size == 0 || total <= INT64_MAX / size, "arrays must have fewer than 2^63 values");
    total *= size;
  }
  return total;
}

void perlin(const Array<float>& angles, double rotation, Array<float>& noise) {
  require(angles.ndim() == 2 && angles.shape(0) > 1 && angles.shape(1) > 1, "angles must be at least 2 x 2");
  require(noise.ndim() == 2, "noise must be (h, w)");
  require(std::isfinite(rotation), "rotation must be finite");
  require_sides({angles.shape(0), angles.shape(1)});
  if (noise.size() == 0) return;
  require_sides({noise.shape(0), noise.shape(1)});
  const float* in = readable(angles);
  float* out = writable(noise);
  const int64_t cells_y = angles.shape(0) - 1, cells_x = angles.shape(1) - 1;
  const int64_t height = noise.shape(0), width = noise.shape(1);
  py::gil_scoped_release unlocked;
  destseg::perlin(in, cells_y, cells_x, rotation, height, width,
                  [&](int64_t i, const float* row) { std::copy(row, row + width, out + i * width); });
}

// lattices: the angles of all samples, concatenated. cells: (n, 2), the number of cells vertically and horizontally.
void corrupt(const Array<uint8_t>& pictures, const Array<uint8_t>& textures, const Array<float>& lattices,
             const Array<int64_t>& cells, const Array<double>& rotations, const Array<float>& shares,
             float threshold, const Array<float>& scale, const Array<float>& offset, int64_t threads,
             Array<float>& corrupted, Array<uint8_t>& masks) {
  require(pictures.ndim() == 4 && pictures.shape(3) == 3, "pictures must be (n, h, w, 3)");
  const int64_t n = pictures.shape(0), height = pictures.shape(1), width = pictures.shape(2);
  require(textures.size() == pictures.size() && corrupted.size() == pictures.size(), "sizes must agree");
  require(masks.size() * 3 == pictures.size(), "masks must be (n, h, w)");
  require(cells.size() == 2 * n && rotations.size() == n && shares.size() == n, "cells, rotations and shares must be one a picture");
  require(scale.size() == 3 && offset.size() == 3, "scale and offset must have three channels");
  const float *angles = readable(lattices), *kept = readable(shares);
  const int64_t* sides = readable(cells);
  const double* turns = readable(rotations);
  std::vector<destseg::Corruption> corruptions;
  int64_t used = 0;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t cells_y = sides[2 * k], cells_x = sides[2 * k + 1];
    require(cells_y > 0 && cells_x > 0, "cells must be positive");
    require_sides({cells_y, cells_x});
    require(std::isfinite(turns[k]), "rotations must be finite");
    corruptions.push_back({angles + used, cells_y, cells_x, turns[k], kept[k]});
    const int64_t points = (cells_y + 1) * (cells_x + 1);
    require(points <= lattices.size() - used, "lattices must hold (cells_y + 1) * (cells_x + 1) angles a picture");
    used += points;
  }
  require(used == lattices.size(), "lattices must hold (cells_y + 1) * (cells_x + 1) angles a picture");
  if (pictures.size() == 0) return;
  require_sides({height, width});
  const uint8_t *pictures_in = readable(pictures), *textures_in = readable(textures);
  const float *scale_in = readable(scale), *offset_in = readable(offset);
  float* corrupted_out = writable(corrupted);
  uint8_t* masks_out = writable(masks);
  py::gil_scoped_release unlocked;
  destseg::corrupt(pictures_in, textures_in, corruptions, threshold, scale_in, offset_in, height, width, threads,
                   corrupted_out, masks_out);
}

template <typename T>
Array<T> to_array(const std::vector<T>& values) {
  return Array<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// The runs of a picture are numbered in 32 bits.
void require_picture(int64_t height, int64_t width) {
  require_sides({height, width});
  require(height * (width + 1) <= kLongestSide, "a mask must have fewer than 2^31 - 64 pixels");
}

// Returns the sizes: only the kernel knows how many components there are.
Array<int64_t> components(const Array<uint8_t>& masks, bool corners, Array<int32_t>& labels) {
  require(masks.ndim() == 3 && labels.size() == masks.size(), "masks and labels must be (n, h, w)");
  if (masks.size() == 0) return Array<int64_t>(0);
  const int64_t n = masks.shape(0), height = masks.shape(1), width = masks.shape(2);
  require_picture(height, width);
  const uint8_t* in = readable(masks);
  int32_t* out = writable(labels);
  std::vector<int64_t> sizes;
  {
    py::gil_scoped_release unlocked;
    sizes = destseg::components(in, n, height, width, corners, out);
  }
  return to_array(sizes);
}

// Returns the size of each instance and the score at which it is found.
template <typename T>
std::pair<Array<int64_t>, Array<T>> split(const Array<T>& scores, const Array<uint8_t>& mask, Array<T>& normals,
                                          Array<T>& positives) {
  require(scores.ndim() == 2 && mask.ndim() == 2, "scores and mask must be (h, w)");
  const int64_t height = scores.shape(0), width = scores.shape(1);
  require(mask.shape(0) == height && mask.shape(1) == width, "scores and mask must be of one size");
  require(normals.size() + positives.size() == mask.size(), "normals and positives must be as many as mask has");
  if (mask.size() == 0) return {Array<int64_t>(0), Array<T>(0)};
  require_picture(height, width);
  const uint8_t* where = readable(mask);
  const T* in = readable(scores);
  T *normals_out = writable(normals), *positives_out = writable(positives);
  const int64_t room = positives.size();
  std::vector<int64_t> sizes;
  std::vector<T> found_at;
  {
    py::gil_scoped_release unlocked;
    destseg::Runs runs;
    destseg::read_picture(where, height, width, true, runs);
    destseg::number_runs(runs, sizes);
    const int64_t count = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
    require(room == count, "positives must be as many as mask has");
    destseg::split(in, height, width, runs, sizes, normals_out, positives_out);
    found_at = destseg::found_at(positives_out, sizes);
  }
  return {to_array(sizes), to_array(found_at)};
}

// Returns the number m of distinct scores. Only the first m entries of the three outputs are written.
int64_t rank(const Array<float>& positives, const Array<int64_t>& sizes, Array<float>& scores,
             Array<int64_t>& counts, Array<double>& overlap) {
  const int64_t* sizes_in = readable(sizes);
  int64_t pixels = 0;
  for (py::ssize_t k = 0; k < sizes.size(); ++k) {
    require(sizes_in[k] >= 0, "sizes must not be negative");
    require(sizes_in[k] <= positives.size() - pixels, "positives must be as many as sizes say");
    pixels += sizes_in[k];
  }
  require(positives.size() == pixels, "positives must be as many as sizes say");
  require(scores.size() == pixels, "scores must have room for all positives");
  require(counts.size() == pixels && overlap.size() == pixels, "counts and overlap must have room for all positives");
  const int64_t instances = sizes.size();
  const float* in = readable(positives);
  float* scores_out = writable(scores);
  int64_t* counts_out = writable(counts);
  double* overlap_out = writable(overlap);
  py::gil_scoped_release unlocked;
  return destseg::rank(in, sizes_in, instances, scores_out, counts_out, overlap_out);
}

template <typename T>
void count_above(const Array<T>& rising, const Array<T>& thresholds, Array<int64_t>& above,
                 Array<int64_t>& at_or_above) {
  require(above.size() == thresholds.size(), "above must hold one count a threshold");
  require(at_or_above.size() == thresholds.size(), "at_or_above must hold one count a threshold");
  const int64_t count = rising.size(), m = thresholds.size();
  const T *scores = readable(rising), *limits = readable(thresholds);
  int64_t *above_out = writable(above), *at_or_above_out = writable(at_or_above);
  py::gil_scoped_release unlocked;
  destseg::count_above(scores, count, limits, m, above_out, at_or_above_out);
}

// The features of both networks on every level: (n, h, w, c) if channels come last, else (n, c, h, w).
struct Features {
  const Arrays taught, learnt;
  std::vector<destseg::Level> levels;
  int64_t n = 0, channels = 0;
  destseg::Order order;

  Features(const List& taught_list, const List& learnt_list, bool channels_last)
      : taught(arrays_of(taught_list)),
        learnt(arrays_of(learnt_list)),
        order(channels_last ? destseg::Order::channels_last : destseg::Order::channels_first) {
    require(!taught.empty() && taught.size() == learnt.size(), "taught and learnt must have the same levels");
    for (size_t k = 0; k < taught.size(); ++k) {
      require(taught[k].ndim() == 4 && learnt[k].ndim() == 4, "features must have four dimensions");
      for (py::ssize_t d = 0; d < 4; ++d)
        require(taught[k].shape(d) == learnt[k].shape(d), "taught and learnt must agree in shape");
      if (k == 0) n = taught[k].shape(0);
      require(taught[k].shape(0) == n, "levels must agree in the number of pictures");
      const int64_t shape[3] = {taught[k].shape(1), taught[k].shape(2), taught[k].shape(3)};
      require(shape[0] > 0 && shape[1] > 0 && shape[2] > 0, "features must not be empty");
      require_sides({shape[0], shape[1], shape[2]});
      const int64_t* size = channels_last ? shape : shape + 1;
      const int64_t depth = shape[channels_last ? 2 : 0];
      levels.push_back({readable(taught[k]), readable(learnt[k]), depth, size[0], size[1]});
      channels += depth;
    }
  }

  void require_positions(const Arrays& values) const {
    require(values.size() == levels.size(), "there must be one array of positions a level");
    for (size_t k = 0; k < levels.size(); ++k)
      require(values[k].size() == product({n, levels[k].height, levels[k].width}), "it must hold one value a position");
  }
};

std::vector<float*> outputs(Arrays& arrays) {
  std::vector<float*> pointers;
  for (Array<float>& array : arrays) pointers.push_back(writable(array));
  return pointers;
}

void similarity_input(const List& taught, const List& learnt, bool channels_last, int64_t threads,
                      Array<float>& output) {
  const Features features(taught, learnt, channels_last);
  const destseg::Level& finest = features.levels[0];
  const int64_t size = product({features.n, features.channels, finest.height, finest.width});
  require(output.size() == size, "output must be (n, sum of c, h_1, w_1)");
  if (size == 0) return;
  float* out = writable(output);
  py::gil_scoped_release unlocked;
  destseg::similarity_input(features.levels, features.n, features.order, threads, out);
}

void cosine_distances(const List& taught, const List& learnt, bool channels_last, int64_t threads,
                      const List& distance_list) {
  const Features features(taught, learnt, channels_last);
  Arrays distances = arrays_of(distance_list);
  features.require_positions(distances);
  const std::vector<float*> out = outputs(distances);
  py::gil_scoped_release unlocked;
  destseg::cosine_distances(features.levels, features.n, features.order, threads, out);
}

void cosine_gradients(const List& taught, const List& learnt, bool channels_last, int64_t threads,
                      const List& slope_list, const List& gradient_list) {
  const Features features(taught, learnt, channels_last);
  const Arrays slopes = arrays_of(slope_list);
  Arrays gradients = arrays_of(gradient_list);
  features.require_positions(slopes);
  require(gradients.size() == features.learnt.size(), "there must be one gradient a level");
  std::vector<const float*> in;
  for (size_t k = 0; k < gradients.size(); ++k) {
    require(gradients[k].size() == features.learnt[k].size(), "gradients must be as large as learnt");
    in.push_back(readable(slopes[k]));
  }
  const std::vector<float*> out = outputs(gradients);
  py::gil_scoped_release unlocked;
  destseg::cosine_gradients(features.levels, features.n, features.order, threads, in, out);
}

// distances: (n, h_k, w_k) for every level. output: (n, h, w).
void destmap(const List& distance_list, int64_t threads, Array<float>& output) {
  const Arrays distances = arrays_of(distance_list);
  require(!distances.empty() && output.ndim() == 3, "there must be distances, and output must be (n, h, w)");
  std::vector<destseg::Planes> levels;
  for (const Array<float>& level : distances) {
    require(level.ndim() == 3 && level.shape(0) == output.shape(0), "distances must be (n, h, w)");
    require(level.shape(1) > 0 && level.shape(2) > 0, "distances must not be empty");
    require_sides({level.shape(1), level.shape(2)});
    levels.push_back({readable(level), level.shape(1), level.shape(2)});
  }
  if (output.size() == 0) return;
  const int64_t n = output.shape(0), height = output.shape(1), width = output.shape(2);
  float* out = writable(output);
  py::gil_scoped_release unlocked;
  destseg::destmap(levels, n, height, width, threads, out);
}

void destmap_of_features(const List& taught, const List& learnt, bool channels_last, int64_t threads,
                         Array<float>& output) {
  const Features features(taught, learnt, channels_last);
  require(output.ndim() == 3 && output.shape(0) == features.n, "output must be (n, h, w)");
  if (output.size() == 0) return;
  const int64_t height = output.shape(1), width = output.shape(2);
  float* out = writable(output);
  py::gil_scoped_release unlocked;
  destseg::destmap_of_features(features.levels, features.n, features.order, height, width, threads, out);
}

template <typename T>
void bind_for_dtype(py::module_& module) {
  module.def("split", &split<T>, py::arg("scores").noconvert(), py::arg("mask").noconvert(),
             py::arg("normals").noconvert(), py::arg("positives").noconvert());
  module.def("count_above", &count_above<T>, py::arg("rising").noconvert(), py::arg("thresholds").noconvert(),
             py::arg("above").noconvert(), py::arg("at_or_above").noconvert());
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled kernels of destseg; call them through destseg.ops, which validates.";
  bind_for_dtype<float>(module);
  bind_for_dtype<double>(module);
  module.def("perlin", &perlin, py::arg("angles").noconvert(), py::arg("rotation"), py::arg("noise").noconvert());
  module.def("similarity_input", &similarity_input, py::arg("taught"), py::arg("learnt"),
             py::arg("channels_last"), py::arg("threads"), py::arg("output").noconvert());
  module.def("cosine_distances", &cosine_distances, py::arg("taught"), py::arg("learnt"),
             py::arg("channels_last"), py::arg("threads"), py::arg("distances"));
  module.def("cosine_gradients", &cosine_gradients, py::arg("taught"), py::arg("learnt"),
             py::arg("channels_last"), py::arg("threads"), py::arg("slopes"),
             py::arg("gradients"));
  module.def("destmap", &destmap, py::arg("distances"), py::arg("threads"), py::arg("output").noconvert());
  module.def("destmap_of_features", &destmap_of_features, py::arg("taught"), py::arg("learnt"),
             py::arg("channels_last"), py::arg("threads"), py::arg("output").noconvert());
  module.def("corrupt", &corrupt, py::arg("pictures").noconvert(), py::arg("textures").noconvert(),
             py::arg("lattices").noconvert(), py::arg("cells").noconvert(), py::arg("rotations").noconvert(),
             py::arg("shares").noconvert(), py::arg("threshold"), py::arg("scale").noconvert(),
             py::arg("offset").noconvert(), py::arg("threads"), py::arg("corrupted").noconvert(),
             py::arg("masks").noconvert());
  module.def("components", &components, py::arg("masks").noconvert(), py::arg("corners"),
             py::arg("labels").noconvert());
  module.def("rank", &rank, py::arg("positives").noconvert(), py::arg("sizes").noconvert(),
             py::arg("scores").noconvert(), py::arg("counts").noconvert(), py::arg("overlap").noconvert());
}

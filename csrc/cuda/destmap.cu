// The DeST map on a GPU; see ../destmap.h. The first launch computes the product at the size of the first level, one
// thread per position. The second launch resizes the product. Not measured on a GPU yet; docs/gpu.md lists the floors.
#include <vector>

#include "kernels.h"
#include "positions.h"
#include "resized.h"

namespace destseg::cuda {

namespace {

template <typename T>
struct Level {
  const T* values;
  int32_t height, width;
  float scale_y, scale_x;  // this level's size divided by the first level's
};

// out = factor * the product of the resized distances of up to kLevels levels. If factor is null, it counts as 1.
template <typename T, typename Out>
struct ProductOfDistances {
  Level<T> levels[kLevels];
  int count;
  const float* factor;
  Out* out;
  uint32_t height, width, positions;  // size of the first level; positions of all pictures

  DESTSEG_DEVICE static float sampled(const Level<T>& level, uint32_t image, uint32_t i, uint32_t j) {
    const Tap row = tap_of(i, level.height, level.scale_y), column = tap_of(j, level.width, level.scale_x);
    const T* plane = level.values + static_cast<int64_t>(image) * level.height * level.width;
    const T *low = plane + static_cast<int64_t>(row.low) * level.width;
    const T *high = plane + static_cast<int64_t>(row.high) * level.width;
    const float above = to_float(low[column.low]) * (1 - column.share) + to_float(low[column.high]) * column.share;
    const float below = to_float(high[column.low]) * (1 - column.share) + to_float(high[column.high]) * column.share;
    return above * (1 - row.share) + below * row.share;
  }

  DESTSEG_DEVICE void operator()(uint32_t block) const {
    each_thread([&](int thread) {
      const uint32_t position = block * kThreads + static_cast<uint32_t>(thread);
      if (position >= positions) return;
      const uint32_t among_rows = position / width, j = position - among_rows * width;
      const uint32_t image = among_rows / height, i = among_rows - image * height;
      float product = factor == nullptr ? 1.0f : factor[position];
      for (int k = 0; k < count; ++k) product *= sampled(levels[k], image, i, j);
      set(out[position], product);
    });
  }
};

template <typename T, typename Out>
void multiply(const std::vector<Plane>& distances, size_t begin, size_t end, int64_t n, const float* factor, Out* out,
              Stream stream) {
  const int64_t height = distances[0].height, width = distances[0].width, positions = n * height * width;
  if (positions >= INT32_MAX) throw std::invalid_argument("too many positions for one call");
  ProductOfDistances<T, Out> kernel{{}, static_cast<int>(end - begin), factor, out, static_cast<uint32_t>(height),
                                    static_cast<uint32_t>(width), static_cast<uint32_t>(positions)};
  for (size_t k = begin; k < end; ++k) {
    const Plane& plane = distances[k];
    kernel.levels[k - begin] = {static_cast<const T*>(plane.values), static_cast<int32_t>(plane.height),
                                static_cast<int32_t>(plane.width),
                                static_cast<float>(plane.height) / static_cast<float>(height),
                                static_cast<float>(plane.width) / static_cast<float>(width)};
  }
  launch(kernel, blocks_for(positions, kThreads), stream);
}

}  // namespace

void destmap(const std::vector<Plane>& distances, int64_t n, Type type, float* product, int64_t height, int64_t width,
             void* out, Stream stream) {
  const Plane& finest = distances[0];
  const bool same = finest.height == height && finest.width == width;
  if (product == nullptr && n > 0 && (!same || distances.size() > kLevels))
    throw std::invalid_argument("room for the product is missing");
  with_type(type, [&](auto value) {
    using T = decltype(value);
    T* map = static_cast<T*>(out);
    const float* factor = nullptr;
    for (size_t begin = 0; begin < distances.size(); begin += kLevels) {
      const size_t end = std::min(begin + kLevels, distances.size());
      if (same && end == distances.size()) {
        multiply<T>(distances, begin, end, n, factor, map, stream);
      } else {
        multiply<T>(distances, begin, end, n, factor, product, stream);
      }
      factor = product;
    }
    const Sides sides{finest.height, finest.width, height, width};
    if (!same) launch_resized<T, 1, false>(product, n, 1, sides, 1, map, stream);
  });
}

}  // namespace destseg::cuda

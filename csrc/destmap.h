// The DeST map. The cosine distances of every level are resized to the size of the first level and multiplied. The
// product is resized to the size of the output. A thread finishes one picture before it starts the next, so that
// intermediate results stay in cache.
// Source: DeSTSeg (arXiv 2211.11317), section 4.4.
//
// From 64 x 64, 32 x 32 and 16 x 16 positions to 256 x 256 pixels it takes 0.02 ms, plus 0.04 ms for the call from
// Python. torch takes 0.18 ms (2-core x86-64 with AVX-512, 2026-11-22).
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cosine.h"
#include "dispatch.h"
#include "parallel.h"
#include "resize.h"

namespace destseg {

// (n, height, width): one value per position.
struct Planes {
  const float* values;
  int64_t height, width;
};

// Resizes one picture's plane to height x width and calls take(i, row) for every row i of the result. Each source row
// is resized horizontally only once and kept in one of two buffers: even rows in the first, odd rows in the second. An
// output row is interpolated between two adjacent source rows, which never share a buffer.
template <typename Take>
DESTSEG_INLINE void for_each_resized_row(const float* plane, int64_t plane_height, int64_t plane_width,
                                         int64_t height, int64_t width, const Take& take) {
  const Taps rows(plane_height, height), columns(plane_width, width);
  std::vector<float> mixed(static_cast<size_t>(width)), widened[2] = {mixed, mixed};
  int64_t held[2] = {-1, -1};  // the source row in each buffer; -1: none
  for (int64_t i = 0; i < height; ++i) {
    const int64_t neighbours[2] = {rows.low.data()[i], rows.high.data()[i]};
    for (const int64_t row : neighbours) {
      if (held[row % 2] != row) widen(plane + row * plane_width, columns, width, widened[row % 2].data());
      held[row % 2] = row;
    }
    const float *low = widened[neighbours[0] % 2].data(), *high = widened[neighbours[1] % 2].data();
    mix(low, high, rows.share.data()[i], width, mixed.data());
    take(i, mixed.data());
  }
}

DESTSEG_WIDE inline void destmap_of_one(const std::vector<Planes>& distances, int64_t image, int64_t height,
                                        int64_t width, float* out) {
  const int64_t finest_height = distances[0].height, finest_width = distances[0].width;
  const float* first = distances[0].values + image * finest_height * finest_width;
  std::vector<float> product(first, first + finest_height * finest_width);
  for (size_t k = 1; k < distances.size(); ++k) {
    const Planes& level = distances[k];
    const float* plane = level.values + image * level.height * level.width;
    const auto multiply = [&](int64_t i, const float* row) {
      float* factor = product.data() + i * finest_width;
#pragma omp simd
      for (int64_t j = 0; j < finest_width; ++j) factor[j] *= row[j];
    };
    for_each_resized_row(plane, level.height, level.width, finest_height, finest_width, multiply);
  }
  if (height == finest_height && width == finest_width) {
    std::copy(product.begin(), product.end(), out);
    return;
  }
  const auto write = [&](int64_t i, const float* row) { std::copy(row, row + width, out + i * width); };
  for_each_resized_row(product.data(), finest_height, finest_width, height, width, write);
}

// out: (n, height, width).
inline void destmap(const std::vector<Planes>& distances, int64_t n, int64_t height, int64_t width, int64_t threads,
                    float* out) {
  parallel_for(n, threads, [&](int64_t image) {
    destmap_of_one(distances, image, height, width, out + image * height * width);
  });
}

// The DeST map computed from the features of both networks. The cosine distances are temporary.
inline void destmap_of_features(const std::vector<Level>& levels, int64_t n, Order order, int64_t height, int64_t width,
                                int64_t threads, float* out) {
  std::vector<std::vector<float>> values;
  std::vector<float*> written;
  std::vector<Planes> distances;
  for (const Level& level : levels) {
    values.emplace_back(static_cast<size_t>(n * level.height * level.width));
    written.push_back(values.back().data());
    distances.push_back({values.back().data(), level.height, level.width});
  }
  cosine_distances(levels, n, order, threads, written);
  destmap(distances, n, height, width, threads, out);
}

}  // namespace destseg

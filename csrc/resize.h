// Bilinear resizing, align_corners=False, as torch defines it: what similarity.h and destmap.h share.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "dispatch.h"

namespace destseg {

// Along one side, an output is the sources low and high mixed, the latter with weight share; they are the same
// where output and source coincide.
template <typename T>
struct Tap {
  int32_t low, high;
  T share;
};

// Output k of `target`, of `source` inputs; scale is source / target.
template <typename T>
DESTSEG_SHARED_FORMULA Tap<T> tap_of(int64_t k, int64_t source, T scale) {
  const T place = std::max(scale * (static_cast<T>(k) + T(0.5)) - T(0.5), T(0));
  const int64_t low = std::min(static_cast<int64_t>(place), source - 1);
  const T share = std::min(place - static_cast<T>(low), T(1));
  const int64_t high = std::min(low + (share > 0), source - 1);
  return {static_cast<int32_t>(low), static_cast<int32_t>(high), share};
}

// The taps of one whole side.
template <typename T>
struct Taps {
  std::vector<int32_t> low, high;
  std::vector<T> share;

  Taps(int64_t source, int64_t target) {
    const T scale = static_cast<T>(source) / static_cast<T>(target);
    for (int64_t k = 0; k < target; ++k) {
      const Tap<T> tap = tap_of(k, source, scale);
      low.push_back(tap.low);
      high.push_back(tap.high);
      share.push_back(tap.share);
    }
  }
};

template <typename T>
DESTSEG_INLINE void mix(const T* low, const T* high, T share, int64_t count, T* out) {
  const T rest = 1 - share;
#pragma omp simd
  for (int64_t k = 0; k < count; ++k) out[k] = low[k] * rest + high[k] * share;
}

// Resizes one row along its width.
template <typename T>
DESTSEG_INLINE void widen(const T* row, const Taps<T>& columns, int64_t count, T* out) {
  const int32_t *low = columns.low.data(), *high = columns.high.data();
  const T* share = columns.share.data();
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) out[j] = row[low[j]] * (1 - share[j]) + row[high[j]] * share[j];
}

}  // namespace destseg

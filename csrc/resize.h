// Bilinear resizing as torch defines it with align_corners=False. Shared by similarity.h and destmap.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "dispatch.h"

namespace destseg {

// Interpolation along one dimension: output = (1 - share) * source[low] + share * source[high]. low and high are equal
// where the output depends on a single source value.
struct Tap {
  int32_t low, high;
  float share;
};

// The tap of output k. source: the number of inputs. scale: the number of inputs divided by that of outputs.
DESTSEG_SHARED_FORMULA Tap tap_of(int64_t k, int64_t source, float scale) {
  const float place = std::max(scale * (static_cast<float>(k) + 0.5f) - 0.5f, 0.0f);
  const int64_t low = std::min(static_cast<int64_t>(place), source - 1);
  const float share = std::min(place - static_cast<float>(low), 1.0f);
  const int64_t high = std::min(low + (share > 0), source - 1);
  return {static_cast<int32_t>(low), static_cast<int32_t>(high), share};
}

// The taps of all outputs along one dimension.
struct Taps {
  std::vector<int32_t> low, high;
  std::vector<float> share;

  Taps(int64_t source, int64_t target) {
    const float scale = static_cast<float>(source) / static_cast<float>(target);
    for (int64_t k = 0; k < target; ++k) {
      const Tap tap = tap_of(k, source, scale);
      low.push_back(tap.low);
      high.push_back(tap.high);
      share.push_back(tap.share);
    }
  }
};

// Interpolates between two rows of `count` values.
DESTSEG_INLINE void mix(const float* low, const float* high, float share, int64_t count, float* out) {
  const float rest = 1 - share;
#pragma omp simd
  for (int64_t k = 0; k < count; ++k) out[k] = low[k] * rest + high[k] * share;
}

// Resizes one row to `count` columns.
DESTSEG_INLINE void widen(const float* row, const Taps& columns, int64_t count, float* out) {
  const int32_t *low = columns.low.data(), *high = columns.high.data();
  const float* share = columns.share.data();
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) out[j] = row[low[j]] * (1 - share[j]) + row[high[j]] * share[j];
}

}  // namespace destseg

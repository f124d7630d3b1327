// The input of the segmentation network. On each level, the normalised teacher and student features are multiplied
// element by element and negated. The products are resized to the size of the first level, and the levels are
// concatenated along the channels.
//
// Normalised features are never stored: the sums of cosine.h give one weight per position for the raw products. The
// output is computed in bands of rows. The products that a band needs from the coarser levels stay in the L2 cache
// until they are resized into their output channels. So the features are read once and the output is written once.
// Source: DeSTSeg (arXiv 2211.11317), section 3.3.
//
// Times for the features of one 256 x 256 picture on one thread, including the call from Python (2-core x86-64 with
// AVX-512, 2026-11-22): channels last 0.8 to 1.1 ms (eager torch: 2 to 7 ms), channels first 1.3 to 2.0 ms (eager
// torch: 11 to 24 ms); torch.compile takes 4 to 17 ms. The spread depends on the memory that the allocator returns.
// Filling an output of this size takes 0.3 ms.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cosine.h"
#include "dispatch.h"
#include "memory.h"
#include "parallel.h"
#include "resize.h"

namespace destseg {

constexpr int64_t kBandRows = 8;  // rows of the output that a thread computes at a time

// Writes the negated products of the unit vectors, for positions [begin, end) of one picture. They have the memory
// order of the features, but a stride of their own. The published segmentation network expects the negative sign.
DESTSEG_INLINE void negative_products(const Level& level, Order order, int64_t image, int64_t begin, int64_t end,
                                      int64_t stride, float* products) {
  const bool channels_last = order == Order::channels_last;
  Sums sums;
  for (; begin < end; begin += kBlockPositions) {
    const Block block = block_of(level, order, image, begin, std::min(begin + kBlockPositions, end));
    sum_channels(block, order, sums);
    float* weight = sums.both;
    for (int64_t p = 0; p < block.positions; ++p) weight[p] = -unit_scale(sums.taught[p], sums.learnt[p]);
    for (int64_t k = 0; k < (channels_last ? block.positions : block.channels); ++k) {
      const float *taught = block.taught + k * block.stride, *learnt = block.learnt + k * block.stride;
      float* out = products + k * stride;
      if (channels_last) {
        const float scale = weight[k];
#pragma omp simd
        for (int64_t c = 0; c < block.channels; ++c) out[c] = scale * (taught[c] * learnt[c]);
      } else {
#pragma omp simd
        for (int64_t p = 0; p < block.positions; ++p) out[p] = weight[p] * (taught[p] * learnt[p]);
      }
    }
    products += block.positions * (channels_last ? stride : 1);
  }
}

// Rows [first, last] of one picture in the output. channels, height and width are those of the whole output.
struct Band {
  const std::vector<Level>& levels;
  const std::vector<Taps>&rows, &columns;  // per level
  int64_t channels, height, width;
  int64_t image, first, last;
  float* out;  // the picture's part of the output
};

// Channels last: writes each position from its first channel to its last, one level after the other.
DESTSEG_INLINE void band_channels_last(const Band& band) {
  struct Source {
    int64_t channels, pitch, top;        // pitch: values per row; top: the row of the level where products begin
    std::vector<float> products, mixed;  // mixed: one row, resized vertically
    const float* row;
  };
  std::vector<Source> sources;
  for (size_t k = 0; k < band.levels.size(); ++k) {
    const Level& level = band.levels[k];
    const int64_t pitch = level.width * level.channels;
    const int64_t top = band.rows[k].low.data()[band.first], end = band.rows[k].high.data()[band.last] + 1;
    sources.push_back({level.channels, pitch, top, std::vector<float>(static_cast<size_t>((end - top) * pitch)),
                       std::vector<float>(static_cast<size_t>(pitch)), nullptr});
    negative_products(level, Order::channels_last, band.image, top * level.width, end * level.width,
                      level.channels, sources[k].products.data());
  }
  float* out = band.out + band.first * band.width * band.channels;
  for (int64_t i = band.first; i <= band.last; ++i) {
    for (size_t k = 0; k < sources.size(); ++k) {
      Source& source = sources[k];
      const float share = band.rows[k].share.data()[i];
      const float* low = source.products.data() + (band.rows[k].low.data()[i] - source.top) * source.pitch;
      const float* high = source.products.data() + (band.rows[k].high.data()[i] - source.top) * source.pitch;
      if (share != 0) mix(low, high, share, source.pitch, source.mixed.data());
      source.row = share != 0 ? source.mixed.data() : low;
    }
    for (int64_t j = 0; j < band.width; ++j) {
      for (size_t k = 0; k < sources.size(); ++k) {
        const int64_t channels = sources[k].channels;
        const float* low = sources[k].row + band.columns[k].low.data()[j] * channels;
        const float* high = sources[k].row + band.columns[k].high.data()[j] * channels;
        mix(low, high, band.columns[k].share.data()[j], channels, out);
        out += channels;
      }
    }
  }
}

// Channels first: writes one channel after the other. Each source row is resized horizontally only once.
DESTSEG_INLINE void band_channels_first(const Band& band) {
  const int64_t width = band.width, plane = band.height * width;
  std::vector<float> products, widened;
  float* out = band.out;
  for (size_t k = 0; k < band.levels.size(); ++k) {
    const Level& level = band.levels[k];
    const int32_t *low_row = band.rows[k].low.data(), *high_row = band.rows[k].high.data();
    const float* row_share = band.rows[k].share.data();
    const int64_t top = low_row[band.first], end = high_row[band.last] + 1;
    const int64_t stride = (end - top) * level.width;
    if (level.height == band.height && level.width == width) {
      negative_products(level, Order::channels_first, band.image, top * width, end * width, plane,
                        out + top * width);
      out += level.channels * plane;
      continue;
    }
    products.resize(static_cast<size_t>(stride * level.channels));
    widened.resize(static_cast<size_t>((end - top) * width));
    negative_products(level, Order::channels_first, band.image, top * level.width, end * level.width, stride,
                      products.data());
    for (int64_t c = 0; c < level.channels; ++c) {
      for (int64_t i = 0; i < end - top; ++i) {
        const float* row = products.data() + c * stride + i * level.width;
        widen(row, band.columns[k], width, widened.data() + i * width);
      }
      for (int64_t i = band.first; i <= band.last; ++i) {
        const float* low = widened.data() + (low_row[i] - top) * width;
        const float* high = widened.data() + (high_row[i] - top) * width;
        mix(low, high, row_share[i], width, out + i * width);
      }
      out += plane;
    }
  }
}

DESTSEG_WIDE inline void write_band(const Band& band, Order order) {
  order == Order::channels_last ? band_channels_last(band) : band_channels_first(band);
}

// out: (n, sum of channels, h_1, w_1), or (n, h_1, w_1, sum of channels) if channels come last. The channels of the
// first level come first.
inline void similarity_input(const std::vector<Level>& levels, int64_t n, Order order, int64_t threads, float* out) {
  const int64_t height = levels[0].height, width = levels[0].width;
  int64_t channels = 0;
  std::vector<Taps> rows, columns;
  for (const Level& level : levels) {
    channels += level.channels;
    rows.emplace_back(level.height, height);
    columns.emplace_back(level.width, width);
  }
  expect_writes(out, n * channels * height * width * static_cast<int64_t>(sizeof(float)));
  const int64_t bands = (height + kBandRows - 1) / kBandRows;
  parallel_for(n * bands, threads, [&](int64_t index) {
    const int64_t image = index / bands, first = index % bands * kBandRows;
    const int64_t last = std::min(first + kBandRows, height) - 1;
    float* picture = out + image * channels * height * width;
    write_band({levels, rows, columns, channels, height, width, image, first, last, picture}, order);
  });
}

}  // namespace destseg

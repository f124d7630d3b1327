// Bilinear resizing of planes with align_corners=False. Shared by similarity.cu and destmap.cu.
//
// A thread computes one packet of channels in one column, row by row down a strip. It keeps the two source rows around
// the output row, already resized horizontally, so each source row is read once per strip.
#pragma once

#include "../resize.h"
#include "values.h"

namespace destseg::cuda {

constexpr uint32_t kStripRows = 8;

// The memory layout of planes: in picture p, packet q of row i and column j begins at
// p * picture + i * row + j * column + q * packet.
struct Strides {
  int64_t picture, row, column, packet;
};

template <bool channels_last>
Strides strides_of(int64_t channels, int64_t height, int64_t width, int64_t values) {
  if (channels_last) return {channels * height * width, channels * width, channels, values};
  return {channels * height * width, width, 1, height * width};
}

template <typename T, int V, bool channels_last>
struct Resized {
  const float* source;
  T* out;
  Strides source_strides, out_strides;
  int32_t source_height, source_width;
  uint32_t height, width, packets;  // of the output
  uint32_t strips, chunks;          // strips per picture; blocks per strip
  float scale_y, scale_x;

  struct Values {
    float values[V];
  };

  DESTSEG_DEVICE static Values mixed(const Values& low, const Values& high, float share) {
    Values result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.values[v] = low.values[v] * (1 - share) + high.values[v] * share;
    return result;
  }

  DESTSEG_DEVICE Values widened(const float* from, int32_t row, const Tap& column) const {
    const float* at = from + row * source_strides.row;
    const Packet<float, V> low = load<V>(at + column.low * source_strides.column);
    const Packet<float, V> high = load<V>(at + column.high * source_strides.column);
    Values left, right;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      left.values[v] = low.values[v];
      right.values[v] = high.values[v];
    }
    return mixed(left, right, column.share);
  }

  DESTSEG_DEVICE void operator()(uint32_t block) const {
    const uint32_t among_strips = block / chunks, image = among_strips / strips;
    const uint32_t first = (among_strips - image * strips) * kStripRows;
    const uint32_t last = first + kStripRows < height ? first + kStripRows : height;
    each_thread([&](int thread) {
      const uint32_t item = (block - among_strips * chunks) * kThreads + static_cast<uint32_t>(thread);
      if (item >= packets * width) return;
      const uint32_t inner = channels_last ? packets : width, outer = item / inner;  // adjacent in memory
      const uint32_t q = channels_last ? item - outer * inner : outer, j = channels_last ? outer : item - outer * inner;
      const Tap column = tap_of(j, source_width, scale_x);
      const float* from = source + image * source_strides.picture + q * source_strides.packet;
      T* to = out + image * out_strides.picture + j * out_strides.column + q * out_strides.packet;
      int32_t low_row = -1, high_row = -1;
      Values low{}, high{};
      for (uint32_t i = first; i < last; ++i) {
        const Tap row = tap_of(i, source_height, scale_y);
        if (row.low != low_row) low = row.low == high_row ? high : widened(from, row.low, column);
        if (row.high != high_row) high = row.high == row.low ? low : widened(from, row.high, column);
        low_row = row.low;
        high_row = row.high;
        const Values result = mixed(low, high, row.share);
        Packet<T, V> packet;
#pragma unroll
        for (int v = 0; v < V; ++v) set(packet.values[v], result.values[v]);
        store(packet, to + i * out_strides.row);
      }
    });
  }
};

// The sizes of the planes before and after resizing.
struct Sides {
  int64_t source_height, source_width, height, width;
};

// source: n x channels planes. out: the first of the output planes; the output has out_channels planes per picture.
template <typename T, int V, bool channels_last>
void launch_resized(const float* source, int64_t n, int64_t channels, const Sides& sides, int64_t out_channels, T* out,
                    Stream stream) {
  const int64_t packets = channels / V, strips = blocks_for(sides.height, kStripRows);
  const int64_t chunks = blocks_for(packets * sides.width, kThreads);
  if (packets * sides.width >= INT32_MAX) throw std::invalid_argument("too many values in a row for one call");
  const Resized<T, V, channels_last> kernel{
      source,
      out,
      strides_of<channels_last>(channels, sides.source_height, sides.source_width, V),
      strides_of<channels_last>(out_channels, sides.height, sides.width, V),
      static_cast<int32_t>(sides.source_height),
      static_cast<int32_t>(sides.source_width),
      static_cast<uint32_t>(sides.height),
      static_cast<uint32_t>(sides.width),
      static_cast<uint32_t>(packets),
      static_cast<uint32_t>(strips),
      static_cast<uint32_t>(chunks),
      static_cast<float>(sides.source_height) / static_cast<float>(sides.height),
      static_cast<float>(sides.source_width) / static_cast<float>(sides.width)};
  launch(kernel, n * strips * chunks, stream);
}

}  // namespace destseg::cuda

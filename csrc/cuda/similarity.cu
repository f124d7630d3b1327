// The input of the segmentation network on a GPU; see ../similarity.h. All features and the output have channels last.
//
// One launch multiplies the features of up to kLevels levels. A team of 16 adjacent threads computes the sums over the
// channels of a position, which it reads in packets of up to 16 bytes. Then it uses the raw features again, which it
// has kept in registers, so features are read from memory once. Channels that do not fit in the registers are read
// twice.
//
// Products on levels that have the size of the first level are written directly to their output channels. Products on
// the other levels, a tenth of the output, are stored as floats. One launch per such level resizes them, while most of
// them are still in the L2 cache. A thread computes one packet of channels in one column, row by row down a strip. It
// keeps the two source rows around the output row, already resized horizontally, so each source row is read once per
// strip.
//
// Times for the features of 32 pictures of 256 x 256 (NVIDIA H200, 2026-11-27, when a third sum was computed beside the
// two): 0.124 ms in bfloat16, 0.115 in float16, 0.129 in float32. Eager torch takes 7 to 9 times as long, torch.compile
// 15 times in bfloat16. docs/gpu.md has the floors.
#include <algorithm>
#include <stdexcept>
#include <vector>

#include "../cosine.h"
#include "../resize.h"
#include "kernels.h"
#include "values.h"

namespace destseg::cuda {

namespace {

constexpr int kLevels = 4;          // most levels per launch
constexpr uint32_t kStripRows = 8;  // most rows of a strip

// The negated products of the unit vectors, in packets of V channels.
template <typename T, int V, typename Out>
struct Products {
  static constexpr int kTeam = 16;
  static constexpr int kOfABlock = kThreads / kTeam;  // positions
  static constexpr int kHeld = 4;                     // packets that a thread keeps in registers
  using Values = Packet<T, V>;

  struct Level {
    const T *taught, *learnt;
    int64_t channels;
    uint32_t positions, end;  // positions of all pictures; end of the level's blocks
    Out* direct;              // the output at the level's first channel, or null
    float* products;          // of a level that has to be resized
  };

  struct Held {
    Values taught[kHeld], learnt[kHeld];
  };

  struct Squares {
    float taught, learnt;  // sums over channels
  };

  Level levels[kLevels];
  int64_t out_channels;

  DESTSEG_DEVICE static void add(const Values& taught, const Values& learnt, Squares& sums) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float t = to_float(taught.values[v]), s = to_float(learnt.values[v]);
      sums.taught += t * t;
      sums.learnt += s * s;
    }
  }

  template <typename Result>
  DESTSEG_DEVICE static Packet<Result, V> multiplied(float weight, const Values& taught, const Values& learnt) {
    Packet<Result, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      set(result.values[v], weight * (to_float(taught.values[v]) * to_float(learnt.values[v])));
    }
    return result;
  }

  // Writes packet q of a position.
  DESTSEG_DEVICE void write(const Level& level, uint32_t position, int64_t q, float weight, const Values& taught,
                            const Values& learnt) const {
    if (level.direct != nullptr) {
      store(multiplied<Out>(weight, taught, learnt), level.direct + position * out_channels + q * V);
    } else {
      store(multiplied<float>(weight, taught, learnt), level.products + position * level.channels + q * V);
    }
  }

  DESTSEG_DEVICE void operator()(uint32_t block) const {
    int k = 0;
    while (block >= levels[k].end) ++k;
    const Level& level = levels[k];
    const uint32_t first = (block - (k == 0 ? 0 : levels[k - 1].end)) * kOfABlock;
    const int packets = static_cast<int>(level.channels / V);
    const auto position_of = [&](int thread) { return first + static_cast<uint32_t>(thread / kTeam); };

    PerThread<Held> held;
    PerThread<float> taught_squared, learnt_squared;
    each_thread([&](int thread) {
      const uint32_t position = position_of(thread);
      const int member = thread % kTeam, end = position < level.positions ? packets : 0;
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        const int q = member + h * kTeam;
        if (q < end) {
          const int64_t at = position * level.channels + q * V;
          held[thread].taught[h] = load<V>(level.taught + at);
          held[thread].learnt[h] = load<V>(level.learnt + at);
        }
      }
      Squares sums{0, 0};
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        if (member + h * kTeam < end) add(held[thread].taught[h], held[thread].learnt[h], sums);
      }
      for (int q = member + kHeld * kTeam; q < end; q += kTeam) {
        const int64_t at = position * level.channels + q * V;
        add(load<V>(level.taught + at), load<V>(level.learnt + at), sums);
      }
      taught_squared[thread] = sums.taught;
      learnt_squared[thread] = sums.learnt;
    });
    team_sum<kTeam>(taught_squared);
    team_sum<kTeam>(learnt_squared);
    each_thread([&](int thread) {
      const uint32_t position = position_of(thread);
      if (position >= level.positions) return;
      const int member = thread % kTeam;
      const float weight = -unit_scale(taught_squared[thread], learnt_squared[thread]);
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        const int q = member + h * kTeam;
        if (q < packets) write(level, position, q, weight, held[thread].taught[h], held[thread].learnt[h]);
      }
      for (int q = member + kHeld * kTeam; q < packets; q += kTeam) {
        const int64_t at = position * level.channels + q * V;
        write(level, position, q, weight, load<V>(level.taught + at), load<V>(level.learnt + at));
      }
    });
  }
};

// The memory layout of pictures: in picture p, channel c of row i and column j is at
// p * picture + i * row + j * column + c.
struct Strides {
  int64_t picture, row, column;
};

Strides strides_of(int64_t channels, int64_t height, int64_t width) {
  return {channels * height * width, channels * width, channels};
}

// The products of one level, resized bilinearly with align_corners=False, in packets of V channels.
template <typename Out, int V>
struct Resized {
  const float* source;
  Out* out;
  Strides source_strides, out_strides;
  int32_t source_height, source_width;
  uint32_t height, width, packets;  // of the output
  uint32_t strips, chunks;          // strips per picture; blocks per strip
  float scale_y, scale_x;
  using Values = Packet<float, V>;

  DESTSEG_DEVICE static Values mixed(const Values& low, const Values& high, float share) {
    Values result;
#pragma unroll
    for (int v = 0; v < V; ++v) result.values[v] = low.values[v] * (1 - share) + high.values[v] * share;
    return result;
  }

  DESTSEG_DEVICE Values widened(const float* from, int32_t row, const Tap& column) const {
    const float* at = from + row * source_strides.row;
    const Values low = load<V>(at + column.low * source_strides.column);
    const Values high = load<V>(at + column.high * source_strides.column);
    return mixed(low, high, column.share);
  }

  DESTSEG_DEVICE void operator()(uint32_t block) const {
    const uint32_t among_strips = block / chunks, image = among_strips / strips;
    const uint32_t first = (among_strips - image * strips) * kStripRows;
    const uint32_t last = first + kStripRows < height ? first + kStripRows : height;
    each_thread([&](int thread) {
      const uint32_t item = (block - among_strips * chunks) * kThreads + static_cast<uint32_t>(thread);
      if (item >= packets * width) return;
      const uint32_t j = item / packets, q = item - j * packets;  // adjacent threads: adjacent channels
      const Tap column = tap_of(j, source_width, scale_x);
      const float* from = source + image * source_strides.picture + q * V;
      Out* to = out + image * out_strides.picture + j * out_strides.column + q * V;
      int32_t low_row = -1, high_row = -1;
      Values low{}, high{};
      for (uint32_t i = first; i < last; ++i) {
        const Tap row = tap_of(i, source_height, scale_y);
        if (row.low != low_row) low = row.low == high_row ? high : widened(from, row.low, column);
        if (row.high != high_row) high = row.high == row.low ? low : widened(from, row.high, column);
        low_row = row.low;
        high_row = row.high;
        const Values result = mixed(low, high, row.share);
        Packet<Out, V> packet;
#pragma unroll
        for (int v = 0; v < V; ++v) set(packet.values[v], result.values[v]);
        store(packet, to + i * out_strides.row);
      }
    });
  }
};

// Where a level's products are written.
template <typename Out>
struct Target {
  Out* channels;    // of the output, the level's first
  float* products;  // resized to there afterwards; null if the level has the output's size
};

template <typename T, int V, typename Out>
void multiply(const FeaturesOf& features, const std::vector<Target<Out>>& targets, int64_t out_channels,
              Stream stream) {
  for (size_t begin = 0; begin < features.levels.size(); begin += kLevels) {
    const size_t end = std::min(begin + kLevels, features.levels.size());
    Products<T, V, Out> kernel{{}, out_channels};
    int64_t blocks = 0;
    for (size_t k = begin; k < end; ++k) {
      const Features& level = features.levels[k];
      const int64_t positions = features.n * level.height * level.width;
      if (positions >= INT32_MAX) throw std::invalid_argument("too many positions for one call");
      blocks += blocks_for(positions, kernel.kOfABlock);
      kernel.levels[k - begin] = {static_cast<const T*>(level.taught),
                                  static_cast<const T*>(level.learnt),
                                  level.channels,
                                  static_cast<uint32_t>(positions),
                                  static_cast<uint32_t>(blocks),
                                  targets[k].products == nullptr ? targets[k].channels : nullptr,
                                  targets[k].products};
    }
    launch(kernel, blocks, stream);
  }
}

template <typename Out, int V>
void resize(const Target<Out>& target, int64_t n, const Features& level, int64_t height, int64_t width,
            int64_t out_channels, Stream stream) {
  const int64_t packets = level.channels / V, strips = blocks_for(height, kStripRows);
  const int64_t chunks = blocks_for(packets * width, kThreads);
  if (packets * width >= INT32_MAX) throw std::invalid_argument("too many values in a row for one call");
  const Resized<Out, V> kernel{target.products,
                               target.channels,
                               strides_of(level.channels, level.height, level.width),
                               strides_of(out_channels, height, width),
                               static_cast<int32_t>(level.height),
                               static_cast<int32_t>(level.width),
                               static_cast<uint32_t>(height),
                               static_cast<uint32_t>(width),
                               static_cast<uint32_t>(packets),
                               static_cast<uint32_t>(strips),
                               static_cast<uint32_t>(chunks),
                               static_cast<float>(level.height) / static_cast<float>(height),
                               static_cast<float>(level.width) / static_cast<float>(width)};
  launch(kernel, n * strips * chunks, stream);
}

// Whether the channels of all levels can be read in packets of `values` values, 16 bytes.
bool fits_packets(const FeaturesOf& features, int64_t values) {
  for (const Features& level : features.levels)
    if (level.channels % values != 0 || !is_aligned(level.taught) || !is_aligned(level.learnt)) return false;
  return true;
}

template <typename T, typename Out>
void run(const FeaturesOf& features, float* products, Out* out, Stream stream) {
  const int64_t n = features.n, height = features.levels[0].height, width = features.levels[0].width;
  constexpr int kPacket = 16 / sizeof(T);
  std::vector<Target<Out>> targets;
  int64_t channels = 0;
  bool in_fours = is_aligned(out) && is_aligned(products);
  for (const Features& level : features.levels) {
    const bool same = level.height == height && level.width == width;
    if (!same && products == nullptr) throw std::invalid_argument("room for the products is missing");
    targets.push_back({out + channels, same ? nullptr : products});
    if (!same) products += n * level.channels * level.height * level.width;
    channels += level.channels;
    in_fours = in_fours && level.channels % 4 == 0;
  }
  if (in_fours && fits_packets(features, kPacket)) {
    multiply<T, kPacket, Out>(features, targets, channels, stream);
  } else {
    multiply<T, 1, Out>(features, targets, channels, stream);
  }
  for (size_t k = 0; k < targets.size(); ++k) {
    const Features& level = features.levels[k];
    if (targets[k].products == nullptr) continue;
    if (in_fours) {
      resize<Out, 4>(targets[k], n, level, height, width, channels, stream);
    } else {
      resize<Out, 1>(targets[k], n, level, height, width, channels, stream);
    }
  }
}

template <typename T>
void run_in(const FeaturesOf& features, float* products, Type out_type, void* out, Stream stream) {
  if (out_type == Type::float32) {
    run<T>(features, products, static_cast<float*>(out), stream);
  } else {
    run<T>(features, products, static_cast<T*>(out), stream);
  }
}

}  // namespace

void similarity_input(const FeaturesOf& features, float* products, Type out_type, void* out, Stream stream) {
  if (out_type != Type::float32 && out_type != features.type)
    throw std::invalid_argument("the output must be float32 or of the features' type");
  if (features.n == 0) return;
  if (features.type == Type::float16) {
    run_in<Half>(features, products, out_type, out, stream);
  } else if (features.type == Type::bfloat16) {
    run_in<Bfloat>(features, products, out_type, out, stream);
  } else {
    run_in<float>(features, products, out_type, out, stream);
  }
}

}  // namespace destseg::cuda

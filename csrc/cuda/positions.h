// The common part of the similarity kernels. A team of threads computes the three sums over the channels of a position.
// Then it uses the raw features again, which it has kept in registers, so features are read from memory once. Channels
// that do not fit in the registers are read twice.
//
// Channels last: a team is 16 adjacent threads, which read the channels of a position in packets of up to 16 bytes.
// Channels first: a warp reads one channel of 32 adjacent positions at a time, and the eight warps of a block divide
// the channels among themselves.
#pragma once

#include <stdexcept>
#include <vector>

#include "../cosine.h"
#include "kernels.h"
#include "values.h"

namespace destseg::cuda {

constexpr int kLevels = 4;  // most levels per launch

struct PositionSums {
  float taught, learnt;  // of squares
  float both;            // of products
};

// A position: its level, its index among the positions of all pictures, and its sums.
struct Position {
  int level;
  int64_t number;
  PositionSums sums;
};

// Use defines what is done with a position:
//   Weights weigh(const Position&, bool first): called by all threads of the team; `first` is true for one of them.
//   void emit(weights, kernel, level, position, index of the packet, taught, learnt): called for every packet of the
//   position, if Use::kEmits.
template <typename T, int V, bool channels_last, typename Use>
struct Positions {
  static constexpr int kTeam = channels_last ? 16 : 8;
  static constexpr int kOfABlock = kThreads / kTeam;
  static constexpr int kHeld = channels_last ? 4 : 8;  // packets that a thread keeps in registers
  using Values = Packet<T, V>;

  struct Level {
    const T *taught, *learnt;
    int64_t channels, plane;
    uint32_t positions, end;  // positions of all pictures; end of the level's blocks
  };

  struct Held {
    Values taught[kHeld], learnt[kHeld];
  };

  Level levels[kLevels];
  Use use;

  // The index of the first value in packet q of a position.
  DESTSEG_DEVICE static int64_t place(int64_t channels, int64_t plane, uint32_t position, int64_t q) {
    if (channels_last) return position * channels + q * V;
    const uint32_t image = position / static_cast<uint32_t>(plane);
    return (image * channels + q) * plane + (position - image * static_cast<uint32_t>(plane));
  }

  DESTSEG_DEVICE static void add(const Values& taught, const Values& learnt, PositionSums& sums) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float t = to_float(taught.values[v]), s = to_float(learnt.values[v]);
      sums.taught += t * t;
      sums.learnt += s * s;
      sums.both += t * s;
    }
  }

  DESTSEG_DEVICE void operator()(uint32_t block) const {
    int k = 0;
    while (block >= levels[k].end) ++k;
    const Level& level = levels[k];
    const uint32_t first = (block - (k == 0 ? 0 : levels[k - 1].end)) * kOfABlock;
    const int packets = static_cast<int>(level.channels / V);
    const auto position_of = [&](int thread) {
      return first + static_cast<uint32_t>(channels_last ? thread / kTeam : thread % kOfABlock);
    };
    const auto member_of = [&](int thread) { return channels_last ? thread % kTeam : thread / kOfABlock; };

    PerThread<Held> held;
    PerThread<float> taught_squared, learnt_squared, both;
    each_thread([&](int thread) {
      const uint32_t position = position_of(thread);
      const int member = member_of(thread), end = position < level.positions ? packets : 0;
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        const int q = member + h * kTeam;
        if (q < end) {
          const int64_t at = place(level.channels, level.plane, position, q);
          held[thread].taught[h] = load<V>(level.taught + at);
          held[thread].learnt[h] = load<V>(level.learnt + at);
        }
      }
      PositionSums sums{0, 0, 0};
#pragma unroll
      for (int h = 0; h < kHeld; ++h) {
        if (member + h * kTeam < end) add(held[thread].taught[h], held[thread].learnt[h], sums);
      }
      for (int q = member + kHeld * kTeam; q < end; q += kTeam) {
        const int64_t at = place(level.channels, level.plane, position, q);
        add(load<V>(level.taught + at), load<V>(level.learnt + at), sums);
      }
      taught_squared[thread] = sums.taught;
      learnt_squared[thread] = sums.learnt;
      both[thread] = sums.both;
    });
    if (channels_last) {
      team_sum<kTeam>(taught_squared);
      team_sum<kTeam>(learnt_squared);
      team_sum<kTeam>(both);
    } else {
      sum_over_warps(taught_squared, learnt_squared, both);
    }
    each_thread([&](int thread) {
      const uint32_t position = position_of(thread);
      if (position >= level.positions) return;
      const int member = member_of(thread);
      const PositionSums sums{taught_squared[thread], learnt_squared[thread], both[thread]};
      [[maybe_unused]] const auto weights = use.weigh({k, position, sums}, member == 0);
      if constexpr (Use::kEmits) {
#pragma unroll
        for (int h = 0; h < kHeld; ++h) {
          const int q = member + h * kTeam;
          if (q < packets) use.emit(weights, *this, k, position, q, held[thread].taught[h], held[thread].learnt[h]);
        }
        for (int q = member + kHeld * kTeam; q < packets; q += kTeam) {
          const int64_t at = place(level.channels, level.plane, position, q);
          use.emit(weights, *this, k, position, q, load<V>(level.taught + at), load<V>(level.learnt + at));
        }
      }
    });
  }

  // With channels first, the threads of a team are in different warps, so they are summed in shared memory.
  DESTSEG_DEVICE static void sum_over_warps(PerThread<float>& taught, PerThread<float>& learnt, PerThread<float>& both) {
    DESTSEG_BLOCK_MEMORY float parts[3][kThreads];
    DESTSEG_BLOCK_MEMORY float totals[3][kOfABlock];
    each_thread([&](int thread) {
      parts[0][thread] = taught[thread];
      parts[1][thread] = learnt[thread];
      parts[2][thread] = both[thread];
    });
    each_thread([&](int thread) {
      if (thread >= 3 * kOfABlock) return;
      const int which = thread / kOfABlock, position = thread % kOfABlock;
      float total = 0;
      for (int member = 0; member < kTeam; ++member) total += parts[which][member * kOfABlock + position];
      totals[which][position] = total;
    });
    each_thread([&](int thread) {
      taught[thread] = totals[0][thread % kOfABlock];
      learnt[thread] = totals[1][thread % kOfABlock];
      both[thread] = totals[2][thread % kOfABlock];
    });
  }
};

// Launches a kernel that applies Use to levels [begin, end) of all pictures.
template <typename T, int V, bool channels_last, typename Use>
void launch_positions(const FeaturesOf& features, size_t begin, size_t end, const Use& use, Stream stream) {
  Positions<T, V, channels_last, Use> kernel{{}, use};
  int64_t blocks = 0;
  for (size_t k = begin; k < end; ++k) {
    const Features& level = features.levels[k];
    const int64_t plane = level.height * level.width, positions = features.n * plane;
    if (positions >= INT32_MAX) throw std::invalid_argument("too many positions for one call");
    blocks += blocks_for(positions, kernel.kOfABlock);
    kernel.levels[k - begin] = {static_cast<const T*>(level.taught), static_cast<const T*>(level.learnt), level.channels,
                                plane, static_cast<uint32_t>(positions), static_cast<uint32_t>(blocks)};
  }
  launch(kernel, blocks, stream);
}

// Whether the channels of all levels can be read in packets of `values` values, 16 bytes.
inline bool fits_packets(const FeaturesOf& features, int64_t values) {
  for (const Features& level : features.levels)
    if (level.channels % values != 0 || !is_aligned(level.taught) || !is_aligned(level.learnt)) return false;
  return features.channels_last;
}

// Splits the levels into groups of up to kLevels and launches one kernel per group, with the Use that
// with_use(begin, end) returns for it.
template <typename T, typename WithUse>
void for_each_group(const FeaturesOf& features, bool packets_fit, Stream stream, const WithUse& with_use) {
  constexpr int kPacket = 16 / sizeof(T);
  for (size_t begin = 0; begin < features.levels.size(); begin += kLevels) {
    const size_t end = std::min(begin + kLevels, features.levels.size());
    const auto use = with_use(begin, end);
    if (packets_fit && fits_packets(features, kPacket)) {
      launch_positions<T, kPacket, true>(features, begin, end, use, stream);
    } else if (features.channels_last) {
      launch_positions<T, 1, true>(features, begin, end, use, stream);
    } else {
      launch_positions<T, 1, false>(features, begin, end, use, stream);
    }
  }
}

// Calls body with a value of the C++ type that `type` stands for.
template <typename Body>
void with_type(Type type, const Body& body) {
  if (type == Type::float16) {
    body(Half{});
  } else if (type == Type::bfloat16) {
    body(Bfloat{});
  } else {
    body(float{});
  }
}

}  // namespace destseg::cuda

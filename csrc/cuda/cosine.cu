// Cosine distances and their gradient on a GPU; see ../cosine.h.
//
// Both kernels are bound by memory bandwidth. The distances read the features of both networks and write almost
// nothing. The gradient reads the features of both networks and writes as much as those of one. Not measured on a GPU
// yet; docs/gpu.md lists the floors.
#include "positions.h"

namespace destseg::cuda {

namespace {

struct Distances {
  static constexpr bool kEmits = false;
  struct Weights {};
  float* out[kLevels];

  DESTSEG_DEVICE Weights weigh(const Position& position, bool first) const {
    const PositionSums& sums = position.sums;
    if (first) out[position.level][position.number] = 1 - sums.both * unit_scale(sums.taught, sums.learnt);
    return {};
  }
};

template <typename T>
struct Gradients {
  static constexpr bool kEmits = true;
  const float* slopes[kLevels];
  T* out[kLevels];

  DESTSEG_DEVICE GradientWeights weigh(const Position& position, bool) const {
    const PositionSums& sums = position.sums;
    return gradient_weights(sums.taught, sums.learnt, sums.both, slopes[position.level][position.number]);
  }

  template <typename Kernel, int V>
  DESTSEG_DEVICE void emit(const GradientWeights& weights, const Kernel& kernel, int k, uint32_t position,
                           int64_t q, const Packet<T, V>& taught, const Packet<T, V>& learnt) const {
    Packet<T, V> gradient;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float t = to_float(taught.values[v]), s = to_float(learnt.values[v]);
      set(gradient.values[v], weights.taught * t + weights.learnt * s);
    }
    store(gradient, out[k] + kernel.place(kernel.levels[k].channels, kernel.levels[k].plane, position, q));
  }
};

}  // namespace

void cosine_distances(const FeaturesOf& features, const std::vector<float*>& distances, Stream stream) {
  with_type(features.type, [&](auto value) {
    for_each_group<decltype(value)>(features, true, stream, [&](size_t begin, size_t end) {
      Distances use{};
      for (size_t k = begin; k < end; ++k) use.out[k - begin] = distances[k];
      return use;
    });
  });
}

void cosine_gradients(const FeaturesOf& features, const std::vector<const float*>& slopes,
                      const std::vector<void*>& gradients, Stream stream) {
  bool aligned = true;
  for (const void* gradient : gradients) aligned = aligned && is_aligned(gradient);
  with_type(features.type, [&](auto value) {
    using T = decltype(value);
    for_each_group<T>(features, aligned, stream, [&](size_t begin, size_t end) {
      Gradients<T> use{};
      for (size_t k = begin; k < end; ++k) {
        use.slopes[k - begin] = slopes[k];
        use.out[k - begin] = static_cast<T*>(gradients[k]);
      }
      return use;
    });
  });
}

}  // namespace destseg::cuda

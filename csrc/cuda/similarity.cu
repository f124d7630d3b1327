// The input of the segmentation network on a GPU; see ../similarity.h.
//
// One launch multiplies the features of up to kLevels levels. Products on levels that have the size of the first level
// are written directly to their output channels. Products on the other levels, a tenth of the output, are stored as
// floats. One launch per such level resizes them, while most of them are still in the L2 cache. Not measured on a GPU
// yet; docs/gpu.md lists the floors.
#include "positions.h"
#include "resized.h"

namespace destseg::cuda {

namespace {

// The negated products of the unit vectors.
template <typename T, typename Out>
struct Products {
  static constexpr bool kEmits = true;
  Out* direct[kLevels];     // the output at the level's first channel, or null
  float* products[kLevels];  // of a level that has to be resized
  int64_t out_channels;

  DESTSEG_DEVICE float weigh(const Position& position, bool) const {
    return -unit_scale(position.sums.taught, position.sums.learnt);
  }

  template <typename Kernel, int V>
  DESTSEG_DEVICE void emit(float weight, const Kernel& kernel, int k, uint32_t position, int64_t q,
                           const Packet<T, V>& taught, const Packet<T, V>& learnt) const {
    const int64_t plane = kernel.levels[k].plane;
    if (direct[k] != nullptr) {
      store(multiplied<Out>(weight, taught, learnt), direct[k] + kernel.place(out_channels, plane, position, q));
    } else {
      const int64_t at = kernel.place(kernel.levels[k].channels, plane, position, q);
      store(multiplied<float>(weight, taught, learnt), products[k] + at);
    }
  }

  template <typename Result, int V>
  DESTSEG_DEVICE static Packet<Result, V> multiplied(float weight, const Packet<T, V>& taught,
                                                     const Packet<T, V>& learnt) {
    Packet<Result, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      set(result.values[v], weight * (to_float(taught.values[v]) * to_float(learnt.values[v])));
    }
    return result;
  }
};

// The offset of a level's first channel in the output.
int64_t first_place(const FeaturesOf& features, int64_t first_channel) {
  const Features& finest = features.levels[0];
  return features.channels_last ? first_channel : first_channel * finest.height * finest.width;
}

template <typename T, typename Out>
void run(const FeaturesOf& features, float* products, Out* out, Stream stream) {
  const Features& finest = features.levels[0];
  const int64_t height = finest.height, width = finest.width;
  std::vector<Out*> direct;
  std::vector<float*> kept;
  std::vector<int64_t> first_channel{0};
  bool in_fours = is_aligned(out) && is_aligned(products);
  for (const Features& level : features.levels) {
    const bool same = level.height == height && level.width == width;
    if (!same && products == nullptr && features.n > 0) throw std::invalid_argument("room for the products is missing");
    direct.push_back(same ? out + first_place(features, first_channel.back()) : nullptr);
    kept.push_back(products);
    if (!same) products += features.n * level.channels * level.height * level.width;
    first_channel.push_back(first_channel.back() + level.channels);
    in_fours = in_fours && level.channels % 4 == 0;
  }
  const int64_t channels = first_channel.back();
  for_each_group<T>(features, in_fours, stream, [&](size_t begin, size_t end) {
    Products<T, Out> use{{}, {}, channels};
    for (size_t k = begin; k < end; ++k) {
      use.direct[k - begin] = direct[k];
      use.products[k - begin] = kept[k];
    }
    return use;
  });
  for (size_t k = 0; k < features.levels.size(); ++k) {
    const Features& level = features.levels[k];
    if (direct[k] != nullptr) continue;
    const Sides sides{level.height, level.width, height, width};
    Out* place = out + first_place(features, first_channel[k]);
    if (!features.channels_last) {
      launch_resized<Out, 1, false>(kept[k], features.n, level.channels, sides, channels, place, stream);
    } else if (in_fours) {
      launch_resized<Out, 4, true>(kept[k], features.n, level.channels, sides, channels, place, stream);
    } else {
      launch_resized<Out, 1, true>(kept[k], features.n, level.channels, sides, channels, place, stream);
    }
  }
}

}  // namespace

void similarity_input(const FeaturesOf& features, float* products, Type out_type, void* out, Stream stream) {
  if (out_type != Type::float32 && out_type != features.type)
    throw std::invalid_argument("the output must be float32 or of the features' type");
  with_type(features.type, [&](auto value) {
    using T = decltype(value);
    if (out_type == Type::float32) {
      run<T, float>(features, products, static_cast<float*>(out), stream);
    } else {
      run<T, T>(features, products, static_cast<T*>(out), stream);
    }
  });
}

}  // namespace destseg::cuda

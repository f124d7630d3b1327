// The kernels for GPUs as the bindings call them. Pointers are to memory of the stream's device, except for vectors.
// Nothing waits for the device, nothing is allocated there: memory for intermediate results is the caller's.
#pragma once

#include <cstdint>
#include <vector>

#include "block.h"

namespace destseg::cuda {

enum class Type { float32, float16, bfloat16 };

// One level of both networks' features: n pictures of height x width positions, all levels in the same order,
// (n, height, width, channels) if channels come last, else (n, channels, height, width).
struct Features {
  const void *taught, *learnt;
  int64_t channels, height, width;
};

struct FeaturesOf {
  std::vector<Features> levels;
  int64_t n;
  Type type;
  bool channels_last;
};

// See ../similarity.h. out: of `out_type`, float32 or the features' own, in the features' order. products: as many
// floats as the features of one network have on levels of another size than the first; may be null without any.
void similarity_input(const FeaturesOf& features, float* products, Type out_type, void* out, Stream stream);

// See ../cosine.h. distances[k]: (n, h_k, w_k).
void cosine_distances(const FeaturesOf& features, const std::vector<float*>& distances, Stream stream);

// slopes[k]: (n, h_k, w_k); gradients[k]: of the type, order and shape of the student's features.
void cosine_gradients(const FeaturesOf& features, const std::vector<const float*>& slopes,
                      const std::vector<void*>& gradients, Stream stream);

struct Plane {
  const void* values;  // (n, height, width)
  int64_t height, width;
};

// See ../destmap.h. product: floats for (n, h_1, w_1); may be null if that is the size of out, (n, height, width).
void destmap(const std::vector<Plane>& distances, int64_t n, Type type, float* product, int64_t height, int64_t width,
             void* out, Stream stream);

// One synthetic anomaly; its angles are (cells_y + 1) x (cells_x + 1), the first of which is number `first`.
struct Anomaly {
  double cosine, sine;  // of the noise's rotation
  int64_t cells_y, cells_x, first;
  float share;  // of the picture that shines through the texture
};

// See ../perlin.h. anomalies: n of them, on the device; angles: as many as all anomalies have, and gradients room for
// twice as many; pictures, textures: n x height x width x 3; corrupted: the same shape; masks: n x height x width.
void corrupt(const uint8_t* pictures, const uint8_t* textures, const Anomaly* anomalies, int64_t n, const float* angles,
             int64_t angle_count, float* gradients, float threshold, const float (&scale)[3], const float (&offset)[3],
             int64_t height, int64_t width, float* corrupted, uint8_t* masks, Stream stream);

}  // namespace destseg::cuda

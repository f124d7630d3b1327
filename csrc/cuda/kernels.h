// The GPU kernels as the bindings call them. Pointers refer to the memory of the stream's device; vectors are in host
// memory. No function waits for the device or allocates memory there: the caller provides all scratch memory.
#pragma once

#include <cstdint>
#include <vector>

#include "block.h"

namespace destseg::cuda {

enum class Type { float32, float16, bfloat16 };

// The features of both networks on one level, each (n, height, width, channels).
struct Features {
  const void *taught, *learnt;
  int64_t channels, height, width;
};

struct FeaturesOf {
  std::vector<Features> levels;
  int64_t n;
  Type type;
};

// See ../similarity.h. out: (n, h_1, w_1, sum of channels) of type out_type, which is float32 or that of the features.
// products: scratch memory, one float for each feature of one network on the levels whose size differs from the first
// level's. It may be null if there are none.
void similarity_input(const FeaturesOf& features, float* products, Type out_type, void* out, Stream stream);

// One synthetic anomaly. Its (cells_y + 1) x (cells_x + 1) angles begin at index `first`.
struct Anomaly {
  double cosine, sine;  // of the rotation of the noise
  int64_t cells_y, cells_x, first;
  float share;  // the weight of the picture where the texture is blended in
};

// See ../perlin.h. anomalies: n, in device memory. angles: those of all anomalies, angle_count. gradients: scratch
// memory for twice as many floats. pictures, textures: n x height x width x 3. corrupted: the same shape. masks:
// n x height x width.
void corrupt(const uint8_t* pictures, const uint8_t* textures, const Anomaly* anomalies, int64_t n, const float* angles,
             int64_t angle_count, float* gradients, float threshold, const float (&scale)[3], const float (&offset)[3],
             int64_t height, int64_t width, float* corrupted, uint8_t* masks, Stream stream);

}  // namespace destseg::cuda

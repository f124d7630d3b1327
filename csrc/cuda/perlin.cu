// A batch of pictures corrupted on a GPU where Perlin noise is high; see ../perlin.h.
//
// The noise of every pixel is evaluated independently with the formulas of ../perlin.h. Coordinates are computed in
// double precision and equal the CPU's to the last bit; the noise is computed in single precision. A block processes a
// tile of consecutive pixels in two phases. The first computes noise and mask, one pixel per thread at a time. The
// second blends, one channel of a pixel per thread at a time, so that adjacent threads access adjacent memory.
//
// 32 pictures of 256 x 256 take 0.059 ms (NVIDIA H200, 2026-11-27), 6 times the floor in docs/gpu.md. The reference,
// which computes the noise on the CPU, takes 4500 times as long.
#include "../perlin.h"

#include "kernels.h"

namespace destseg::cuda {

namespace {

struct LatticeGradients {
  const float* angles;
  float *along_rows, *along_columns;
  int64_t count;

  DESTSEG_DEVICE void operator()(uint32_t block) const {
    each_thread([&](int thread) {
      const int64_t k = static_cast<int64_t>(block) * kThreads + thread;
      if (k >= count) return;
      along_rows[k] = kPerlinGain * std::cos(angles[k]);
      along_columns[k] = kPerlinGain * std::sin(angles[k]);
    });
  }
};

constexpr uint32_t kTile = 1024;  // pixels

struct CorruptTile {
  const uint8_t *pictures, *textures;
  const Anomaly* anomalies;
  const float *along_rows, *along_columns;
  float threshold, scale[3], offset[3];
  uint32_t height, width, tiles;  // per picture
  float* corrupted;
  uint8_t* masks;

  // A pixel along one axis of the lattice: its cell, and its offset within the cell.
  struct Place {
    int64_t cell;
    float offset;
  };

  DESTSEG_DEVICE static Place place_of(double start, double step, int64_t cells, int64_t side, uint32_t j) {
    const double scale = static_cast<double>(cells) / static_cast<double>(side);
    const double place = start * scale + static_cast<double>(j) * (step * scale);
    const int64_t cell = static_cast<int64_t>(std::min(std::max(place, 0.0), static_cast<double>(cells - 1)));
    return {cell, static_cast<float>(place - static_cast<double>(cell))};
  }

  DESTSEG_DEVICE float noise(const Anomaly& anomaly, uint32_t i, uint32_t j) const {
    const PerlinLine line = perlin_line({anomaly.cosine, anomaly.sine}, i, height, width);
    if (!perlin_inside(line, j, height, width)) return 0;
    const Place y = place_of(line.row, line.row_step, anomaly.cells_y, height, j);
    const Place x = place_of(line.column, line.column_step, anomaly.cells_x, width, j);
    const int64_t points_x = anomaly.cells_x + 1, corner = anomaly.first + y.cell * points_x + x.cell;
    const PerlinCell cell = perlin_cell(along_rows + corner, along_columns + corner, points_x);
    const float v = y.offset, u = x.offset;
    return perlin_mixed(v, u, perlin_linear(cell, 0, v, u), perlin_linear(cell, 1, v, u), perlin_linear(cell, 2, v, u),
                        perlin_linear(cell, 3, v, u));
  }

  DESTSEG_DEVICE void operator()(uint32_t block) const {
    const uint32_t image = block / tiles, first = (block - image * tiles) * kTile, pixels = height * width;
    const uint32_t count = pixels - first < kTile ? pixels - first : kTile;
    const int64_t begin = static_cast<int64_t>(image) * pixels + first;
    DESTSEG_BLOCK_MEMORY float kept[kTile];
    each_thread([&](int thread) {
      const Anomaly& anomaly = anomalies[image];
      for (uint32_t k = static_cast<uint32_t>(thread); k < count; k += kThreads) {
        const uint32_t i = (first + k) / width, j = first + k - i * width;
        const bool is_anomaly = noise(anomaly, i, j) > threshold;
        kept[k] = is_anomaly ? anomaly.share : 1.0f;
        masks[begin + k] = is_anomaly;
      }
    });
    each_thread([&](int thread) {
      for (uint32_t k = static_cast<uint32_t>(thread); k < 3 * count; k += kThreads) {
        const uint32_t pixel = k / 3, channel = k - 3 * pixel;
        const int64_t at = 3 * begin + k;
        corrupted[at] = corrupted_value(pictures[at], textures[at], kept[pixel], scale[channel], offset[channel]);
      }
    });
  }
};

}  // namespace

void corrupt(const uint8_t* pictures, const uint8_t* textures, const Anomaly* anomalies, int64_t n, const float* angles,
             int64_t angle_count, float* gradients, float threshold, const float (&scale)[3], const float (&offset)[3],
             int64_t height, int64_t width, float* corrupted, uint8_t* masks, Stream stream) {
  if (height * width >= INT32_MAX) throw std::invalid_argument("a picture must have fewer than 2^31 pixels");
  float* along_columns = gradients + angle_count;
  launch(LatticeGradients{angles, gradients, along_columns, angle_count}, blocks_for(angle_count, kThreads), stream);
  const int64_t tiles = blocks_for(height * width, kTile);
  const CorruptTile kernel{pictures,
                           textures,
                           anomalies,
                           gradients,
                           along_columns,
                           threshold,
                           {scale[0], scale[1], scale[2]},
                           {offset[0], offset[1], offset[2]},
                           static_cast<uint32_t>(height),
                           static_cast<uint32_t>(width),
                           static_cast<uint32_t>(tiles),
                           corrupted,
                           masks};
  launch(kernel, n * tiles, stream);
}

}  // namespace destseg::cuda

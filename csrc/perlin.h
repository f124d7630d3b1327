// Perlin gradient noise, evaluated at rotated coordinates, and pictures corrupted where it is high.
//
// A lattice of unit gradients (cos a along rows, sin a along columns) lies over the picture; a pixel's noise
// is the faded bilinear mixture of the four dot products between its cell's gradients and the offsets to the
// cell's corners (Perlin, "Improving noise", 2002), times sqrt(2). Turning the noise by an angle is turning
// the coordinates at which it is asked, so it needs no second pass and no resampling; pixels that fall
// outside the picture are 0. Per output row the pixels inside form one interval, found once in double
// precision, which leaves a branch-free loop for the compiler to vectorise.
//
// A corrupted picture takes one pass: a row of noise stays in the first-level cache, where it exceeds the
// threshold the texture is blended in, and every pixel is normalised on the way out. Source: DeSTSeg (arXiv
// 2211.11317), section 3.1.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace destseg {

// Pixels this close outside the border still count as inside, so that a quarter turn loses no edge.
constexpr double kPerlinBorder = 1e-6;

// One output row in source coordinates: pixel column j lies at (row + j * row_step, column + j * column_step).
struct PerlinLine {
  double row, row_step, column, column_step;
};

DESTSEG_INLINE bool perlin_inside(const PerlinLine& line, int64_t j, int64_t height, int64_t width) {
  const double row = line.row + static_cast<double>(j) * line.row_step;
  const double column = line.column + static_cast<double>(j) * line.column_step;
  return row >= -kPerlinBorder && row <= static_cast<double>(height - 1) + kPerlinBorder &&
         column >= -kPerlinBorder && column <= static_cast<double>(width - 1) + kPerlinBorder;
}

// gradients: (cells_y + 1) x (cells_x + 1) pairs (cos, sin); noise: columns [begin, end) of one row.
template <typename T>
DESTSEG_INLINE void perlin_row(const T* gradients, int64_t cells_x, double scale_y, double scale_x,
                               const PerlinLine& line, int64_t begin, int64_t end, T* noise) {
  const T* below = gradients + 2 * (cells_x + 1);
  for (int64_t j = begin; j < end; ++j) {
    const double y = (line.row + static_cast<double>(j) * line.row_step) * scale_y;
    const double x = (line.column + static_cast<double>(j) * line.column_step) * scale_x;
    const int32_t cell_y = static_cast<int32_t>(y), cell_x = static_cast<int32_t>(x);
    const T v = static_cast<T>(y - cell_y), u = static_cast<T>(x - cell_x);
    const int32_t corner = 2 * (cell_y * static_cast<int32_t>(cells_x + 1) + cell_x);
    const T dot00 = gradients[corner] * v + gradients[corner + 1] * u;
    const T dot01 = gradients[corner + 2] * v + gradients[corner + 3] * (u - 1);
    const T dot10 = below[corner] * (v - 1) + below[corner + 1] * u;
    const T dot11 = below[corner + 2] * (v - 1) + below[corner + 3] * (u - 1);
    const T fade_v = v * v * v * (v * (v * 6 - 15) + 10), fade_u = u * u * u * (u * (u * 6 - 15) + 10);
    const T top = dot00 + (dot01 - dot00) * fade_u, bottom = dot10 + (dot11 - dot10) * fade_u;
    noise[j] = static_cast<T>(1.4142135623730951) * (top + (bottom - top) * fade_v);
  }
}

DESTSEG_WIDE inline void perlin_row_wide(const float* gradients, int64_t cells_x, double scale_y, double scale_x,
                                         const PerlinLine& line, int64_t begin, int64_t end, float* noise) {
  perlin_row(gradients, cells_x, scale_y, scale_x, line, begin, end, noise);
}

DESTSEG_WIDE inline void perlin_row_wide(const double* gradients, int64_t cells_x, double scale_y, double scale_x,
                                         const PerlinLine& line, int64_t begin, int64_t end, double* noise) {
  perlin_row(gradients, cells_x, scale_y, scale_x, line, begin, end, noise);
}

// angles: (cells_y + 1) x (cells_x + 1) in radians; rotation in radians about the centre. Calls
// visit(i, noise) with each finished row of `width` values, which is overwritten by the next.
template <typename T, typename Visit>
void perlin(const T* angles, int64_t cells_y, int64_t cells_x, double rotation, int64_t height, int64_t width,
            const Visit& visit) {
  const int64_t points = (cells_y + 1) * (cells_x + 1);
  std::vector<T> gradients(static_cast<size_t>(2 * points));
  for (int64_t k = 0; k < points; ++k) {
    gradients[static_cast<size_t>(2 * k)] = std::cos(angles[k]);
    gradients[static_cast<size_t>(2 * k + 1)] = std::sin(angles[k]);
  }
  const double cosine = std::cos(rotation), sine = std::sin(rotation);
  const double centre_y = 0.5 * static_cast<double>(height - 1), centre_x = 0.5 * static_cast<double>(width - 1);
  const double scale_y = static_cast<double>(cells_y) / static_cast<double>(height);
  const double scale_x = static_cast<double>(cells_x) / static_cast<double>(width);
  std::vector<T> noise(static_cast<size_t>(width));
  T* row = noise.data();
  for (int64_t i = 0; i < height; ++i) {
    const double dy = static_cast<double>(i) - centre_y;
    const PerlinLine line{(centre_y + cosine * dy) - sine * centre_x, sine,
                          (centre_x - sine * dy) - cosine * centre_x, cosine};
    int64_t begin = 0, end = width;
    while (begin < end && !perlin_inside(line, begin, height, width)) row[begin++] = 0;
    while (begin < end && !perlin_inside(line, end - 1, height, width)) row[--end] = 0;
    perlin_row_wide(gradients.data(), cells_x, scale_y, scale_x, line, begin, end, row);
    visit(i, row);
  }
}

// What one anomaly is made of: its lattice stands at `angles`, (cells_y + 1) x (cells_x + 1).
struct Corruption {
  const float* angles;
  int64_t cells_y, cells_x;
  double rotation;
  float share;  // of the picture that shines through the texture
};

// One row: picture and texture are width x 3 bytes; corrupted is width x 3 floats, mask width bytes.
DESTSEG_WIDE inline void corrupt_row(const uint8_t* picture, const uint8_t* texture, const float* noise, float share,
                                     float threshold, const float* scale, const float* offset, int64_t width,
                                     float* corrupted, uint8_t* mask) {
  for (int64_t j = 0; j < width; ++j) {
    const bool anomalous = noise[j] > threshold;
    mask[j] = anomalous;
    const float kept = anomalous ? share : 1.0f;
    for (int64_t c = 0; c < 3; ++c) {
      const float blend = kept * static_cast<float>(picture[3 * j + c]) +
                          (1.0f - kept) * static_cast<float>(texture[3 * j + c]);
      corrupted[3 * j + c] = blend * scale[c] + offset[c];
    }
  }
}

// pictures, textures: n x height x width x 3; corrupted: the same shape, blend * scale + offset per channel;
// masks: n x height x width, 0 or 1.
inline void corrupt(const uint8_t* pictures, const uint8_t* textures, const std::vector<Corruption>& corruptions,
                    float threshold, const float* scale, const float* offset, int64_t height, int64_t width,
                    int64_t threads, float* corrupted, uint8_t* masks) {
  parallel_for(static_cast<int64_t>(corruptions.size()), threads, [&](int64_t n) {
    const Corruption& corruption = corruptions[static_cast<size_t>(n)];
    const int64_t first = n * height * width;
    perlin(corruption.angles, corruption.cells_y, corruption.cells_x, corruption.rotation, height, width,
           [&](int64_t i, const float* noise) {
             const int64_t at = first + i * width;
             corrupt_row(pictures + 3 * at, textures + 3 * at, noise, corruption.share, threshold, scale, offset,
                         width, corrupted + 3 * at, masks + at);
           });
  });
}

}  // namespace destseg

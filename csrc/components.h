// Connected components of a stack of masks, by union-find over runs.
//
// A run is a maximal stretch of foreground pixels within one row. The runs of a row are found in words of 64 pixels and
// joined with the runs that they touch in the row above (the method of Rosenfeld and Pfaltz, 1966, on runs instead of
// pixels). They are numbered after the whole picture has been read. Of two roots, the larger always becomes the child
// of the smaller. So a root is the first run of its component, and numbers follow raster order, as in the reference.
//
// Times for a 1024 x 1024 mask (one thread of a Xeon at 2.7 GHz, 2026-11-22): with discs 0.34 ms (OpenCV: 1.0 ms,
// scipy: 2.2 ms, the numpy reference: 5.6 ms); with noise, half of the pixels set, 5.1 ms (7.9, 10.8 and 94 ms).
// Splitting a map by discs takes 1.2 ms (the reference: 23 ms), measured with other work on the machine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "dispatch.h"

#if defined(_MSC_VER)
#include <intrin.h>
#endif

namespace destseg {

inline int32_t lowest_bit(uint64_t word) {
#if defined(_MSC_VER)
  unsigned long place;
  _BitScanForward64(&place, word);
  return static_cast<int32_t>(place);
#else
  return __builtin_ctzll(word);
#endif
}

// One bit per pixel, for up to 64 pixels: 1 if it is foreground.
DESTSEG_INLINE uint64_t foreground_bits(const uint8_t* pixels, int32_t count) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7fu, kHigh = 0x8080808080808080u;
  uint64_t bytes[8] = {};
  std::memcpy(bytes, pixels, static_cast<size_t>(count));
  if (!(bytes[0] | bytes[1] | bytes[2] | bytes[3] | bytes[4] | bytes[5] | bytes[6] | bytes[7])) return 0;
  uint64_t bits = 0;
  for (int32_t k = 0; k < 8; ++k) {
    const uint64_t flags = (((bytes[k] & kLow) + kLow) | bytes[k]) & kHigh;  // top bit of each byte: is it not 0?
    bits |= (((flags >> 7) * 0x0102040810204080u) >> 56) << (8 * k);         // packs the eight flags into one byte
  }
  return bits;
}

// The runs of one picture, in raster order: run r covers columns [edges[2r], edges[2r + 1]) of its row.
struct Runs {
  std::vector<int32_t> edges;
  std::vector<int32_t> parents;     // in the union-find forest; a root is its own parent
  std::vector<int32_t> row_starts;  // the first run of each row, then the number of runs

  int32_t begin(int32_t run) const { return edges[static_cast<size_t>(2 * run)]; }
  int32_t end(int32_t run) const { return edges[static_cast<size_t>(2 * run + 1)]; }
  int32_t& parent(int32_t run) { return parents[static_cast<size_t>(run)]; }

  int32_t root(int32_t run) {
    while (parent(run) != run) run = parent(run) = parent(parent(run));
    return run;
  }

  // Joins two trees and returns their common root.
  int32_t join(int32_t root_a, int32_t root_b) {
    return parent(std::max(root_a, root_b)) = std::min(root_a, root_b);
  }
};

// Appends the runs of one row; buffer holds at least width + 1 numbers.
inline void read_row(const uint8_t* row, int32_t width, int32_t* buffer, Runs& runs) {
  int32_t* edge = buffer;
  uint64_t last_pixel = 0;
  for (int32_t x = 0; x < width; x += 64) {
    const uint64_t bits = width - x < 64 ? foreground_bits(row + x, width - x) : foreground_bits(row + x, 64);
    uint64_t changes = bits ^ ((bits << 1) | last_pixel);
    for (; changes; changes &= changes - 1) *edge++ = x + lowest_bit(changes);
    last_pixel = bits >> 63;
  }
  if ((edge - buffer) % 2) *edge++ = width;
  runs.edges.insert(runs.edges.end(), buffer, edge);
}

// Joins the runs [middle, stop) of a row with the runs [first, middle) of the row above where they touch.
inline void join_rows(int32_t first, int32_t middle, int32_t stop, int32_t reach, Runs& runs) {
  int32_t above = first;
  for (int32_t run = middle; run < stop; ++run) {
    const int32_t begin = runs.begin(run) - reach, end = runs.end(run) + reach;
    int32_t root = run;
    while (above < middle && runs.end(above) <= begin) ++above;
    for (; above < middle && runs.begin(above) < end; ++above) root = runs.join(root, runs.root(above));
    if (above > first) --above;  // it may touch the next run as well
  }
}

// Reads and joins the runs of one picture. corners: whether pixels that share only a corner are connected.
inline void read_picture(const uint8_t* mask, int64_t height, int64_t width, bool corners, Runs& runs) {
  runs.edges.clear();
  runs.parents.clear();
  runs.row_starts.assign(1, 0);
  std::vector<int32_t> buffer(static_cast<size_t>(width + 1));
  // Reserves room for the most runs possible. Unused pages cost address space, but no memory.
  runs.edges.reserve(static_cast<size_t>(height * (width + 1)));
  runs.parents.reserve(static_cast<size_t>(height * (width + 1) / 2));
  int32_t above = 0, row = 0;
  for (int64_t i = 0; i < height; ++i) {
    read_row(mask + i * width, static_cast<int32_t>(width), buffer.data(), runs);
    const int32_t stop = static_cast<int32_t>(runs.edges.size() / 2);
    for (int32_t run = row; run < stop; ++run) runs.parents.push_back(run);
    join_rows(above, row, stop, corners ? 1 : 0, runs);
    runs.row_starts.push_back(stop);
    above = row;
    row = stop;
  }
}

// Replaces the parent of each run by the number of its component. Numbering continues after the components in `sizes`,
// and the sizes of the new components are appended there.
inline void number_runs(Runs& runs, std::vector<int64_t>& sizes) {
  std::vector<int32_t>& numbers = runs.parents;  // a parent precedes its children, so it is numbered already
  for (int32_t run = 0; run < runs.row_starts.back(); ++run) {
    int32_t& number = numbers[static_cast<size_t>(run)];
    if (number == run) {
      if (sizes.size() == INT32_MAX) throw std::length_error("a stack must have fewer than 2^31 components");
      sizes.push_back(0);
      number = static_cast<int32_t>(sizes.size());
    } else {
      number = numbers[static_cast<size_t>(number)];
    }
    sizes[static_cast<size_t>(number - 1)] += runs.end(run) - runs.begin(run);
  }
}

inline void write_labels(const Runs& runs, int64_t height, int64_t width, int32_t* labels) {
  constexpr int32_t kBlock = 16;  // filling whole blocks and clearing the excess is faster for short runs
  std::vector<int32_t> last_rows(static_cast<size_t>(width + kBlock));
  for (int64_t i = 0; i < height; ++i) {
    const bool overhang_is_overwritten = (height - i - 1) * width >= kBlock;
    int32_t* row = overhang_is_overwritten ? labels + i * width : last_rows.data();
    std::fill_n(row, width, 0);
    const int32_t stop = runs.row_starts[static_cast<size_t>(i + 1)];
    for (int32_t run = runs.row_starts[static_cast<size_t>(i)]; run < stop; ++run) {
      const int32_t number = runs.parents[static_cast<size_t>(run)], end = runs.end(run);
      for (int32_t x = runs.begin(run); x < end; x += kBlock) std::fill_n(row + x, kBlock, number);
      std::fill_n(row + end, kBlock, 0);
    }
    if (!overhang_is_overwritten) std::copy_n(row, width, labels + i * width);
  }
}

// masks: n x height x width, 0 is background. labels: the same shape. Returns the size of each component.
inline std::vector<int64_t> components(const uint8_t* masks, int64_t n, int64_t height, int64_t width,
                                       bool corners, int32_t* labels) {
  std::vector<int64_t> sizes;
  Runs runs;
  for (int64_t image = 0; image < n; ++image) {
    const int64_t first_pixel = image * height * width;
    read_picture(masks + first_pixel, height, width, corners, runs);
    number_runs(runs, sizes);
    write_labels(runs, height, width, labels + first_pixel);
  }
  return sizes;
}

// Copies the scores of a picture, a whole run at a time. Scores outside the runs go to normals, in raster order. Scores
// of component 1, 2, .. go to positives, one component after the other, each in raster order.
template <typename T>
void split(const T* scores, int64_t height, int64_t width, const Runs& runs,
           const std::vector<int64_t>& sizes, T* normals, T* positives) {
  std::vector<T*> next;  // where the next run of each component goes
  for (const int64_t size : sizes) {
    next.push_back(positives);
    positives += size;
  }
  for (int64_t i = 0; i < height; ++i, scores += width) {
    const T* normal = scores;
    const int32_t stop = runs.row_starts[static_cast<size_t>(i + 1)];
    for (int32_t run = runs.row_starts[static_cast<size_t>(i)]; run < stop; ++run) {
      T*& component = next[static_cast<size_t>(runs.parents[static_cast<size_t>(run)] - 1)];
      normals = std::copy(normal, scores + runs.begin(run), normals);
      component = std::copy(scores + runs.begin(run), scores + runs.end(run), component);
      normal = scores + runs.end(run);
    }
    normals = std::copy(normal, scores + width, normals);
  }
}

// positives: the scores of each component, one component after the other. Returns for each component the score that
// more than half of its pixels reach: the one at index size / 2 in descending order.
template <typename T>
std::vector<T> found_at(const T* positives, const std::vector<int64_t>& sizes) {
  std::vector<T> scores, component;
  for (const int64_t size : sizes) {
    component.assign(positives, positives + size);
    const auto middle = component.begin() + size / 2;
    // NaN counts as the lowest score: nth_element may leave the range if no order is strict.
    const auto is_higher = [](T a, T b) { return a > b || (b != b && a == a); };
    std::nth_element(component.begin(), middle, component.end(), is_higher);
    scores.push_back(*middle);
    positives += size;
  }
  return scores;
}

}  // namespace destseg

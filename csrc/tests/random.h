// Random inputs for the tests of the CPU and GPU kernels.
#pragma once

#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "../cosine.h"

namespace destseg::tests {

inline std::mt19937 generator(0);

inline int64_t between(int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(generator);
}

inline double uniform(double low, double high) {
  return std::uniform_real_distribution<double>(low, high)(generator);
}

inline void check(bool holds, const char* what) {
  if (!holds) throw std::logic_error(std::string("does not hold: ") + what);  // ends the test program
}

template <typename T>
std::vector<T> random_array(int64_t size, double low, double high) {
  std::vector<T> values(static_cast<size_t>(size));
  for (T& value : values) value = static_cast<T>(uniform(low, high));
  return values;
}

inline double rotation() {
  const double quarter_turns = static_cast<double>(between(-2, 2));
  return between(0, 2) ? uniform(-2, 2) : 1.5707963267948966 * quarter_turns;
}

struct Pyramid {
  std::vector<std::vector<float>> taught, learnt;
  std::vector<destseg::Level> levels;
  int64_t n = between(0, 3), channels = 0;

  // Every level has a multiple of `step` channels.
  explicit Pyramid(int64_t step = 1) {
    for (int64_t k = between(1, 5); k > 0; --k) {
      const int64_t size[3] = {step * between(1, 40), between(1, 25), between(1, 25)};
      const int64_t values = n * size[0] * size[1] * size[2];
      taught.push_back(random_array<float>(values, -1, 1));
      learnt.push_back(random_array<float>(values, -1, 1));
      levels.push_back({taught.back().data(), learnt.back().data(), size[0], size[1], size[2]});
      channels += size[0];
    }
  }

  int64_t positions(size_t k) const { return n * levels[k].height * levels[k].width; }
};

}  // namespace destseg::tests

// Runs the GPU kernels on the CPU under the sanitizers and compares them with the CPU kernels. Arrays are exactly as
// large as the kernels are told. The threads of a block run one after the other, in both orders, which must give the
// same bits: threads that interact within a phase would race on a GPU.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <vector>

#include "../cuda/perlin.cu"
#include "../cuda/similarity.cu"
#include "../similarity.h"
#include "random.h"

namespace {

using namespace destseg::tests;
namespace cuda = destseg::cuda;

constexpr cuda::Stream kStream{0, 0};

template <typename T>
constexpr cuda::Type kType = std::is_same_v<T, cuda::Half>     ? cuda::Type::float16
                             : std::is_same_v<T, cuda::Bfloat> ? cuda::Type::bfloat16
                                                               : cuda::Type::float32;

template <typename T>
constexpr float kTolerance = std::is_same_v<T, cuda::Half> ? 1e-3f : std::is_same_v<T, cuda::Bfloat> ? 8e-3f : 1e-5f;

// Values in a type of GPU memory, aligned as they are there.
template <typename T>
std::vector<T> stored(const std::vector<float>& values) {
  std::vector<T> result(values.size());
  for (size_t k = 0; k < values.size(); ++k) cuda::set(result[k], values[k]);
  return result;
}

template <typename T>
std::vector<float> read(const std::vector<T>& values) {
  std::vector<float> result;
  for (const T value : values) result.push_back(cuda::to_float(value));
  return result;
}

void check_close(const std::vector<float>& found, const std::vector<float>& expected, float tolerance, const char* what) {
  check(found.size() == expected.size(), what);
  for (size_t k = 0; k < found.size(); ++k)
    check(std::abs(found[k] - expected[k]) <= tolerance * (1 + std::abs(expected[k])), what);
}

// Calls run() with the threads in both orders, checks that the results agree, and returns the result.
template <typename Run>
auto either_way(const Run& run) {
  cuda::emulate_backwards = false;
  auto forwards = run();
  cuda::emulate_backwards = true;
  check(forwards == run(), "the order of threads does not matter");
  return forwards;
}

void test_half() {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const cuda::Half half{static_cast<uint16_t>(bits)};
    const cuda::Bfloat bfloat{static_cast<uint16_t>(bits)};
    cuda::Half same_half;
    cuda::Bfloat same_bfloat;
    cuda::set(same_half, cuda::to_float(half));
    cuda::set(same_bfloat, cuda::to_float(bfloat));
    check(same_half.bits == bits || std::isnan(cuda::to_float(half)), "float16 survives");
    check(same_bfloat.bits == bits || std::isnan(cuda::to_float(bfloat)), "bfloat16 survives");
  }
  const struct {
    float value;
    uint16_t half, bfloat;
  } cases[] = {{1 + 0x1p-11f, 0x3c00, 0x3f80}, {1 + 0x3p-11f, 0x3c02, 0x3f80}, {65519, 0x7bff, 0x4780},
               {65520, 0x7c00, 0x4780},        {0x1p-25f, 0, 0x3300},          {0x1.8p-24f, 2, 0x33c0}};
  for (const auto& one : cases) {
    cuda::Half half;
    cuda::Bfloat bfloat;
    cuda::set(half, one.value);
    cuda::set(bfloat, one.value);
    check(half.bits == one.half && bfloat.bits == one.bfloat, "ties go to even");
  }
}

template <typename T>
void test_similarity() {
  const Pyramid pyramid(between(0, 1) ? 8 : 1);

  // The CPU kernel gets the values that the GPU kernel reads, after rounding.
  std::vector<std::vector<T>> taught, learnt;
  std::vector<std::vector<float>> taught_read, learnt_read;
  std::vector<destseg::Level> levels;
  cuda::FeaturesOf features{{}, pyramid.n, kType<T>};
  int64_t coarse = 0;
  for (size_t k = 0; k < pyramid.levels.size(); ++k) {
    const auto& level = pyramid.levels[k];
    taught.push_back(stored<T>(pyramid.taught[k]));
    learnt.push_back(stored<T>(pyramid.learnt[k]));
    taught_read.push_back(read(taught[k]));
    learnt_read.push_back(read(learnt[k]));
    levels.push_back({taught_read[k].data(), learnt_read[k].data(), level.channels, level.height, level.width});
    features.levels.push_back({taught[k].data(), learnt[k].data(), level.channels, level.height, level.width});
    const bool same = level.height == pyramid.levels[0].height && level.width == pyramid.levels[0].width;
    if (!same) coarse += pyramid.positions(k) * level.channels;
  }
  std::vector<float> expected(static_cast<size_t>(pyramid.positions(0) * pyramid.channels));
  destseg::similarity_input(levels, pyramid.n, destseg::Order::channels_last, 1, expected.data());

  const auto run = [&](auto value, cuda::Type type) {
    std::vector<float> products(static_cast<size_t>(coarse));
    std::vector<decltype(value)> out(expected.size());
    cuda::similarity_input(features, products.data(), type, out.data(), kStream);
    return read(out);
  };
  check_close(either_way([&] { return run(float{}, cuda::Type::float32); }), expected, 1e-5f, "the same input");
  check_close(either_way([&] { return run(T{}, kType<T>); }), expected, kTolerance<T>, "the same input, rounded");
}

void test_corrupt() {
  const int64_t n = between(0, 4), height = between(1, 50), width = between(1, 60);
  const size_t pixels = static_cast<size_t>(n * height * width);
  const auto pictures = random_array<uint8_t>(n * height * width * 3, 0, 255);
  const auto textures = random_array<uint8_t>(n * height * width * 3, 0, 255);
  std::vector<std::vector<float>> lattices;
  std::vector<destseg::Corruption> corruptions;
  std::vector<cuda::Anomaly> anomalies;
  std::vector<float> angles;
  std::vector<double> turns;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t cells_y = between(1, 32), cells_x = between(1, 32), first = static_cast<int64_t>(angles.size());
    const double turn = rotation();
    const float share = static_cast<float>(uniform(0, 1));
    lattices.push_back(random_array<float>((cells_y + 1) * (cells_x + 1), -7, 7));
    angles.insert(angles.end(), lattices.back().begin(), lattices.back().end());
    anomalies.push_back({std::cos(turn), std::sin(turn), cells_y, cells_x, first, share});
    corruptions.push_back({lattices.back().data(), cells_y, cells_x, turn, share});
  }
  const float scale[3] = {0.1f, 0.2f, 0.3f}, offset[3] = {-1, -2, -3};
  std::vector<float> expected(3 * pixels);
  std::vector<uint8_t> expected_masks(pixels);
  destseg::corrupt(pictures.data(), textures.data(), corruptions, 0.5f, scale, offset, height, width, 1,
                   expected.data(), expected_masks.data());
  const auto found = either_way([&] {
    std::vector<float> gradients(2 * angles.size()), corrupted(3 * pixels);
    std::vector<uint8_t> masks(pixels, 7);
    cuda::corrupt(pictures.data(), textures.data(), anomalies.data(), n, angles.data(),
                  static_cast<int64_t>(angles.size()), gradients.data(), 0.5f, scale, offset, height, width,
                  corrupted.data(), masks.data(), kStream);
    return std::make_pair(corrupted, masks);
  });
  size_t differing = 0;  // pixels whose noise equals the threshold up to rounding
  for (size_t k = 0; k < pixels; ++k) {
    if (found.second[k] != expected_masks[k]) {
      ++differing;
      continue;
    }
    for (size_t c = 3 * k; c < 3 * k + 3; ++c)
      check(std::abs(found.first[c] - expected[c]) <= 1e-5f, "the same pictures");
  }
  check(differing <= 1 + pixels / 5000, "the same masks but for ties");
}

}  // namespace

int main(int, char** arguments) {
  constexpr int kRepeats = 60;
  test_half();
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    test_similarity<float>();
    test_similarity<cuda::Half>();
    test_similarity<cuda::Bfloat>();
    test_corrupt();
  }
  std::printf("%d random shapes of every kernel for GPUs, emulated, %s: all checks hold\n", kRepeats, arguments[1]);
}

// Runs every CPU kernel under the sanitizers on random shapes, which include one pixel and none. Arrays are exactly as
// large as the kernels are told. Properties of the results that are cheap to check are checked as well, above all that
// the threaded kernels give the same bits on one thread and on several.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <new>
#include <thread>
#include <vector>

#include "../components.h"
#include "../destmap.h"
#include "../parallel.h"
#include "../perlin.h"
#include "../ranking.h"
#include "../similarity.h"
#include "random.h"

namespace {

using namespace destseg::tests;

std::vector<uint8_t> random_mask(int64_t size) {
  const double density = uniform(0, 1);
  std::vector<uint8_t> mask(static_cast<size_t>(size));
  for (uint8_t& pixel : mask) pixel = uniform(0, 1) < density ? static_cast<uint8_t>(between(1, 255)) : 0;
  return mask;
}

void test_parallel() {
  const auto caller = std::this_thread::get_id();
  std::atomic<bool> thrown{false};
  const auto fail_in_a_helper = [&](int64_t) {
    if (std::this_thread::get_id() != caller) {
      thrown = true;
      throw std::bad_alloc();
    }
    while (!thrown) std::this_thread::yield();
  };
  bool caught = false;
  try {
    destseg::parallel_for(between(2, 4), 2, fail_in_a_helper);
  } catch (const std::bad_alloc&) {
    caught = true;
  }
  check(caught, "what a helper throws reaches the caller");
}

void test_perlin() {
  const int64_t height = between(1, 40), width = between(1, 40);
  const int64_t cells_y = between(1, 50), cells_x = between(1, 50);
  const auto angles = random_array<float>((cells_y + 1) * (cells_x + 1), -7, 7);
  int64_t rows = 0;
  destseg::perlin(angles.data(), cells_y, cells_x, rotation(), height, width, [&](int64_t i, const float* noise) {
    check(i == rows++, "rows come in order");
    for (int64_t j = 0; j < width; ++j) check(std::abs(noise[j]) < 1.01, "noise lies in [-1, 1]");
  });
  check(rows == height, "every row comes");
}

void test_corrupt() {
  const int64_t n = between(0, 4), height = between(1, 20), width = between(1, 30);
  const int64_t values = n * height * width * 3;
  const auto pictures = random_array<uint8_t>(values, 0, 255), textures = random_array<uint8_t>(values, 0, 255);
  std::vector<std::vector<float>> lattices;
  std::vector<destseg::Corruption> corruptions;
  for (int64_t k = 0; k < n; ++k) {
    const int64_t cells_y = between(1, 32), cells_x = between(1, 32);
    lattices.push_back(random_array<float>((cells_y + 1) * (cells_x + 1), -7, 7));
    corruptions.push_back({lattices.back().data(), cells_y, cells_x, rotation(), static_cast<float>(uniform(0, 1))});
  }
  const float scale[3] = {0.1f, 0.2f, 0.3f}, offset[3] = {-1, -2, -3};
  const auto run = [&](int64_t threads) {
    std::vector<float> corrupted(static_cast<size_t>(values));
    std::vector<uint8_t> masks(static_cast<size_t>(values / 3), 7);
    destseg::corrupt(pictures.data(), textures.data(), corruptions, 0.5f, scale, offset, height, width, threads,
                     corrupted.data(), masks.data());
    for (const uint8_t pixel : masks) check(pixel <= 1, "masks are 0 or 1");
    return std::make_pair(corrupted, masks);
  };
  check(run(1) == run(4), "corrupted pictures do not depend on threads");
}

void test_components() {
  const int64_t n = between(0, 3), height = between(0, 20), width = between(0, 150);
  const auto mask = random_mask(n * height * width);
  std::vector<int32_t> labels(mask.size(), -1);
  const auto sizes = destseg::components(mask.data(), n, height, width, between(0, 1), labels.data());
  std::vector<int64_t> counted(sizes.size());
  for (size_t k = 0; k < mask.size(); ++k) {
    check((labels[k] > 0) == (mask[k] > 0), "foreground is labelled");
    if (labels[k] > 0) ++counted.at(static_cast<size_t>(labels[k] - 1));
    const bool joined = k % static_cast<size_t>(width) && mask[k] && mask[k - 1];
    if (joined) check(labels[k] == labels[k - 1], "neighbours have one label");
  }
  check(counted == sizes, "sizes count the labels");
}

void test_ranking() {
  const int64_t height = between(0, 20), width = between(0, 80), pixels = height * width;
  const auto mask = random_mask(pixels);
  auto scores = random_array<float>(pixels, -2, 2);
  if (between(0, 1))
    for (float& score : scores) score = std::round(score);  // ties, and zeros of both signs
  destseg::Runs runs;
  std::vector<int64_t> sizes;
  destseg::read_picture(mask.data(), height, width, true, runs);
  destseg::number_runs(runs, sizes);
  const size_t count = static_cast<size_t>(pixels - std::count(mask.begin(), mask.end(), 0));
  std::vector<float> positives(count), normals(mask.size() - count), distinct(count);
  destseg::split(scores.data(), height, width, runs, sizes, normals.data(), positives.data());
  check(destseg::found_at(positives.data(), sizes).size() == sizes.size(), "every instance is found somewhere");
  std::vector<int64_t> counts(count);
  std::vector<double> overlap(count);
  const int64_t m = destseg::rank(positives.data(), sizes.data(), static_cast<int64_t>(sizes.size()),
                                  distinct.data(), counts.data(), overlap.data());
  check(m == 0 || counts[static_cast<size_t>(m - 1)] == static_cast<int64_t>(count), "all positives are reached");
  std::sort(normals.begin(), normals.end());
  std::vector<int64_t> above(static_cast<size_t>(m)), at_or_above(static_cast<size_t>(m));
  destseg::count_above(normals.data(), static_cast<int64_t>(normals.size()), distinct.data(), m, above.data(),
                       at_or_above.data());
  for (size_t k = 0; k < above.size(); ++k) check(above[k] <= at_or_above[k], "counts do not fall");
}

void test_similarity() {
  const Pyramid pyramid;
  const int64_t height = between(1, 60), width = between(1, 60);
  const auto order = between(0, 1) ? destseg::Order::channels_last : destseg::Order::channels_first;
  std::vector<std::vector<float>> slopes;
  std::vector<const float*> slopes_in;
  for (size_t k = 0; k < pyramid.levels.size(); ++k) {
    slopes.push_back(random_array<float>(pyramid.positions(k), -1, 1));
    slopes_in.push_back(slopes.back().data());
  }
  const auto run = [&](int64_t threads) {
    std::vector<std::vector<float>> results(1);
    results[0].resize(static_cast<size_t>(pyramid.positions(0) * pyramid.channels));
    std::vector<float*> distances, gradients;
    for (size_t k = 0; k < pyramid.levels.size(); ++k) results.emplace_back(slopes[k].size());
    for (size_t k = 0; k < pyramid.levels.size(); ++k) results.emplace_back(pyramid.learnt[k].size());
    results.emplace_back(static_cast<size_t>(pyramid.n * height * width), -1.0f);
    for (size_t k = 0; k < pyramid.levels.size(); ++k) {
      distances.push_back(results[1 + k].data());
      gradients.push_back(results[1 + pyramid.levels.size() + k].data());
    }
    destseg::similarity_input(pyramid.levels, pyramid.n, order, threads, results[0].data());
    destseg::cosine_distances(pyramid.levels, pyramid.n, order, threads, distances);
    destseg::cosine_gradients(pyramid.levels, pyramid.n, order, threads, slopes_in, gradients);
    std::vector<destseg::Planes> planes;
    for (size_t k = 0; k < pyramid.levels.size(); ++k)
      planes.push_back({distances[k], pyramid.levels[k].height, pyramid.levels[k].width});
    destseg::destmap(planes, pyramid.n, height, width, threads, results.back().data());
    std::vector<float> at_once(results.back().size(), -1.0f);
    destseg::destmap_of_features(pyramid.levels, pyramid.n, order, height, width, threads, at_once.data());
    check(at_once == results.back(), "the DeST map of features is that of their distances");
    for (const float value : results[0]) check(std::abs(value) < 1.001, "products of unit vectors lie in [-1, 1]");
    for (size_t k = 0; k < pyramid.levels.size(); ++k)
      for (const float value : results[1 + k]) check(value > -0.001 && value < 2.001, "distances lie in [0, 2]");
    for (const float value : results.back()) check(value > -0.001 && value < 32.01, "five such distances' products");
    return results;
  };
  check(run(1) == run(4), "similarities do not depend on threads");
}

}  // namespace

int main(int, char** arguments) {
  constexpr int kRepeats = 400;
  for (int repeat = 0; repeat < kRepeats; ++repeat) {
    test_parallel();
    test_perlin();
    test_corrupt();
    test_components();
    test_ranking();
    test_similarity();
  }
  std::printf("%d random shapes of every kernel, %s: all checks hold\n", kRepeats, arguments[1]);
}

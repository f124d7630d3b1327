// The one way a kernel uses several threads: indices handed out one at a time, each worked on by one thread
// alone, so results do not depend on how many threads there are. Plain std::thread, made for the call and gone
// with it: no pool that a forked data worker would inherit broken, no second OpenMP runtime beside torch's.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace destseg {

// Calls body(index) for every index in [0, count), from at most `threads` threads; body must not throw.
template <typename Body>
void parallel_for(int64_t count, int64_t threads, const Body& body) {
  std::atomic<int64_t> next{0};
  const auto work = [&] {
    for (int64_t index = next++; index < count; index = next++) body(index);
  };
  std::vector<std::thread> helpers;
  for (int64_t k = 1; k < std::min(threads, count); ++k) helpers.emplace_back(work);
  work();
  for (std::thread& helper : helpers) helper.join();
}

}  // namespace destseg

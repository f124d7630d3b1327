// The parallel loop of the CPU kernels. Threads take indices one at a time, and each index is processed by one thread
// alone, so results do not depend on the number of threads. The threads are plain std::threads that live for one call.
// A thread pool would be broken in forked data-loading workers, and OpenMP would add a second runtime beside torch's.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace destseg {

// Calls body(index) for every index in [0, count), on at most `threads` threads. body must not throw.
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

// The parallel loop of the CPU kernels. Threads take indices one at a time, and each index is processed by one thread
// alone, so results do not depend on the number of threads. The threads are plain std::threads that live for one call.
// A thread pool would be broken in forked data-loading workers, and OpenMP would add a second runtime beside torch's.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace destseg {

// Calls body(index) for every index in [0, count), on at most `threads` threads, and on fewer if the system starts no
// more. If body throws, indices not yet taken are left out, and the first exception is thrown here.
template <typename Body>
void parallel_for(int64_t count, int64_t threads, const Body& body) {
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (int64_t index = next++; index < count; index = next++) body(index);
    } catch (...) {
      next = count;
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  try {
    for (int64_t k = 1; k < std::min(threads, count); ++k) helpers.emplace_back(work);
  } catch (const std::exception&) {
    // No more threads, or no memory for them: those that run do all the work.
  }
  work();
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace destseg

// What a GPU kernel is written with, so that the very same code runs without one in tests.
//
// A kernel is a struct whose call operator does the work of one block of kThreads threads. It is a sequence of
// phases: each_thread(body) calls body(thread) for every thread of the block and returns when all are done. What
// a thread keeps from one phase to the next stands in a PerThread, what threads tell one another in shared memory,
// written in one phase and read in a later one, or goes through team_sum. So no barrier can be forgotten, and where
// there is no GPU a phase is a loop. Compiled by nvcc, a PerThread is a register.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define DESTSEG_DEVICE __device__ __forceinline__
#define DESTSEG_BLOCK_MEMORY __shared__
#else
#define DESTSEG_DEVICE inline
#define DESTSEG_BLOCK_MEMORY
#endif

namespace destseg::cuda {

constexpr int kThreads = 256;  // of a block

// Where and when a kernel runs: the number of the device, and the address of one of its streams.
struct Stream {
  int device;
  uintptr_t handle;
};

template <typename T>
struct PerThread {
#if defined(__CUDACC__)
  T value;
  DESTSEG_DEVICE T& operator[](int) { return value; }
#else
  T values[kThreads];
  T& operator[](int thread) { return values[thread]; }
#endif
};

#if !defined(__CUDACC__)
// Tests run the threads of a phase in either order: what differs then would be a race on a GPU.
inline bool emulate_backwards = false;
#endif

template <typename Body>
DESTSEG_DEVICE void each_thread(const Body& body) {
#if defined(__CUDACC__)
  body(static_cast<int>(threadIdx.x));
  __syncthreads();
#else
  for (int k = 0; k < kThreads; ++k) body(emulate_backwards ? kThreads - 1 - k : k);
#endif
}

// Every thread's value becomes the sum over its team of `team` neighbours, a power of two up to 32. The order of the
// sum is the same everywhere.
template <int team>
DESTSEG_DEVICE void team_sum(PerThread<float>& values) {
  static_assert(team <= 32 && (team & (team - 1)) == 0, "teams lie within a warp");
#if defined(__CUDACC__)
#pragma unroll
  for (int distance = team / 2; distance > 0; distance /= 2) {
    values.value += __shfl_xor_sync(0xffffffffu, values.value, distance);
  }
#else
  for (int distance = team / 2; distance > 0; distance /= 2) {
    const PerThread<float> before = values;
    for (int thread = 0; thread < kThreads; ++thread) {
      values[thread] += before.values[thread ^ distance];
    }
  }
#endif
}

#if defined(__CUDACC__)
inline void check(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

// This module's own runtime follows no other's choice of a device.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    check(cudaGetDevice(&before_));
    if (device != before_) check(cudaSetDevice(device));
  }
  ~DeviceGuard() { cudaSetDevice(before_); }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
};

// Three blocks share the registers of a multiprocessor, so that enough reads are under way.
template <typename Kernel>
__global__ void __launch_bounds__(kThreads, 3) run_block(const __grid_constant__ Kernel kernel) {
  kernel(static_cast<uint32_t>(blockIdx.x));
}
#endif

// Runs blocks 0, 1 .. of a kernel, on a GPU in any order and not before all that the stream holds already.
template <typename Kernel>
void launch(const Kernel& kernel, int64_t blocks, Stream stream) {
  if (blocks > INT32_MAX) throw std::invalid_argument("too many values for one call");
  if (blocks == 0) return;
#if defined(__CUDACC__)
  const DeviceGuard guard(stream.device);
  run_block<<<static_cast<unsigned>(blocks), kThreads, 0, reinterpret_cast<cudaStream_t>(stream.handle)>>>(kernel);
  check(cudaGetLastError());
#else
  (void)stream;
  for (int64_t block = 0; block < blocks; ++block) kernel(static_cast<uint32_t>(block));
#endif
}

constexpr int64_t blocks_for(int64_t items, int64_t of_a_block) { return (items + of_a_block - 1) / of_a_block; }

}  // namespace destseg::cuda

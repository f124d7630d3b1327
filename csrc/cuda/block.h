// Building blocks of the GPU kernels. The same kernel code also runs on the CPU, in tests.
//
// A kernel is a struct whose call operator does the work of one block of kThreads threads. The work is a sequence of
// phases: each_thread(body) calls body(thread) for every thread of the block and returns when all threads are done. A
// PerThread holds what a thread keeps from one phase to the next; nvcc compiles it to a register. Threads exchange
// values through team_sum, or through shared memory that is written in one phase and read in a later one. Every phase
// ends with a barrier, so none can be forgotten. On the CPU, a phase is a loop over the threads.
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

constexpr int kThreads = 256;  // per block

// Where a kernel runs: the device number and the address of one of the device's streams.
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
// Tests run the threads of a phase in both orders. A result that depends on the order would be a race on a GPU.
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

// Replaces the value of every thread by the sum over its team. A team is `team` adjacent threads, a power of two up to
// 32. The order of summation is the same on a GPU and on the CPU.
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

// Selects a device, and restores the previous one at the end of the scope. This module has its own CUDA runtime, for
// which torch's choice of device does not count.
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

// Registers are limited so that three blocks fit on a multiprocessor, which keeps enough reads in flight.
template <typename Kernel>
__global__ void __launch_bounds__(kThreads, 3) run_block(const __grid_constant__ Kernel kernel) {
  kernel(static_cast<uint32_t>(blockIdx.x));
}
#endif

// Runs blocks 0, 1, .. of a kernel. On a GPU they run in any order, after all work already queued on the stream.
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

// Function multiversioning, so that one binary serves every x86-64 processor. A function marked DESTSEG_WIDE is
// compiled once per vector width. When the module is loaded, the widest version that the processor supports is
// selected. On other platforms the mark has no effect.
#pragma once

// The targets are microarchitecture levels, which test for instruction sets; "arch=haswell" would test for that
// processor model. v3 has AVX2 and v4 has AVX-512. v4 makes noise with few cells 1.4 times as fast and does not speed
// up the other kernels.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__CUDACC__)
#define DESTSEG_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DESTSEG_WIDE
#endif

// A function that must be inlined into every version of its caller. On its own, it would be compiled for the narrowest
// vectors only.
#if defined(_MSC_VER)
#define DESTSEG_INLINE __forceinline
#else
#define DESTSEG_INLINE inline __attribute__((always_inline))
#endif

// A formula shared by the CPU and GPU kernels.
#if defined(__CUDACC__)
#define DESTSEG_SHARED_FORMULA __host__ __device__ DESTSEG_INLINE
#else
#define DESTSEG_SHARED_FORMULA DESTSEG_INLINE
#endif

// One binary for every x86-64: functions marked DESTSEG_WIDE are compiled once per vector width and the
// widest form that the processor knows is chosen when the module is loaded. Elsewhere it means nothing.
#pragma once

// Levels ask what a processor can do, where "arch=haswell" would ask whether it is a Haswell: v3 has AVX2, and v4
// AVX-512, which makes noise of few cells 1.4 times as fast and gains nothing in the other kernels.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(__CUDACC__)
#define DESTSEG_WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DESTSEG_WIDE
#endif

// A function that must become part of each of its caller's forms, or it would stay narrow.
#if defined(_MSC_VER)
#define DESTSEG_INLINE __forceinline
#else
#define DESTSEG_INLINE inline __attribute__((always_inline))
#endif

// A formula that the processor's kernels and those of a GPU share.
#if defined(__CUDACC__)
#define DESTSEG_SHARED_FORMULA __host__ __device__ DESTSEG_INLINE
#else
#define DESTSEG_SHARED_FORMULA DESTSEG_INLINE
#endif

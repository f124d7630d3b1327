// The types of values in GPU memory (float, half and bfloat16) and packets of values, which are loaded and stored up to
// 16 bytes at once. All arithmetic is in float.
#pragma once

#include <cstdint>

#include "block.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#else
#include <cmath>
#include <cstring>
#endif

namespace destseg::cuda {

#if defined(__CUDACC__)
using Half = __half;
using Bfloat = __nv_bfloat16;
DESTSEG_DEVICE float to_float(Half value) { return __half2float(value); }
DESTSEG_DEVICE float to_float(Bfloat value) { return __bfloat162float(value); }
DESTSEG_DEVICE void set(Half& out, float value) { out = __float2half_rn(value); }
DESTSEG_DEVICE void set(Bfloat& out, float value) { out = __float2bfloat16_rn(value); }
#else
struct Half {
  uint16_t bits;
};

struct Bfloat {
  uint16_t bits;
};

inline float to_float(Bfloat value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float result;
  std::memcpy(&result, &bits, sizeof(result));
  return result;
}

inline void set(Bfloat& out, float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  const uint32_t even = (bits >> 16) & 1;  // round half to even
  out.bits = static_cast<uint16_t>(std::isnan(value) ? 0x7fc0 : (bits + 0x7fff + even) >> 16);
}

inline float to_float(Half value) {
  const int exponent = (value.bits >> 10) & 31, fraction = value.bits & 1023;
  float size = std::ldexp(static_cast<float>(exponent ? fraction + 1024 : fraction), exponent ? exponent - 25 : -24);
  if (exponent == 31) size = fraction ? NAN : INFINITY;
  return value.bits >> 15 ? -size : size;
}

inline void set(Half& out, float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::abs(value);
  if (!(size < 65520)) {  // rounds to 65536, beyond the largest half: infinity, or NaN
    out.bits = static_cast<uint16_t>(sign | (std::isnan(value) ? 0x7e00 : 0x7c00));
    return;
  }
  const int exponent = size < 0x1p-14f ? -14 : std::ilogb(size);
  // A fraction that rounds up to the next power of two carries into the exponent bits, as it should.
  const int fraction = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - exponent)));
  out.bits = static_cast<uint16_t>(sign | (((exponent + 14) << 10) + fraction));
}
#endif

DESTSEG_DEVICE float to_float(float value) { return value; }
DESTSEG_DEVICE void set(float& out, float value) { out = value; }

// `count` consecutive values, aligned to their total size or to 16 bytes, whichever is smaller.
template <typename T, int count>
struct alignas(sizeof(T) * count < 16 ? sizeof(T) * count : 16) Packet {
  T values[count];
};

template <int count, typename T>
DESTSEG_DEVICE Packet<T, count> load(const T* from) {
  return *reinterpret_cast<const Packet<T, count>*>(from);
}

template <int count, typename T>
DESTSEG_DEVICE void store(const Packet<T, count>& packet, T* to) {
  *reinterpret_cast<Packet<T, count>*>(to) = packet;
}

inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace destseg::cuda

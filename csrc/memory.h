// Large outputs arrive as untouched memory. The page faults of the first write, one per 4 KiB, can cost more than the
// computation. On Linux, 2 MiB pages are requested instead: the similarity input of eight pictures, 59 MB, then takes
// 15 ms instead of 27 ms (2-core x86-64, 2026-11-22).
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace destseg {

// Hints that memory is about to be written from end to end. The system may ignore the hint.
inline void expect_writes(void* memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (address + kHugePage - 1) / kHugePage * kHugePage;
  const uintptr_t end = (address + static_cast<uintptr_t>(bytes)) / kHugePage * kHugePage;
  if (begin + 8 * kHugePage <= end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

}  // namespace destseg

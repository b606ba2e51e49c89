// The widest registers that the processor has and the system saves, in bytes.
//
// Asks the processor itself: the builtins of compilers call a runtime library, which in some of
// them reports no feature at all.
#pragma once

#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>

namespace losswire {

inline int32_t find_widest_register() {
  constexpr uint32_t kAvx2 = 1u << 5;
  constexpr uint32_t kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  constexpr uint32_t kSystemSaves = 1u << 27;
  constexpr uint32_t kSaved32 = 0x06, kSaved64 = 0xE6;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & kSystemSaves)) return 16;
  uint32_t saved, high;
  __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 16;
  if ((b & kAvx2) != kAvx2 || (saved & kSaved32) != kSaved32) return 16;
  return (b & kAvx512) == kAvx512 && (saved & kSaved64) == kSaved64 ? 64 : 32;
}

// Asked once: in a virtual machine it takes microseconds.
static const int32_t kWidestRegister = find_widest_register();

}  // namespace losswire

#endif

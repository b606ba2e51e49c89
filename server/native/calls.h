// Shared by all calls of the library: dtypes, results, and code for each register width.
#pragma once

#include "processor.h"
#include "vectors.h"

namespace losswire {

// The numbers of the wire's DataType.
enum Type : int32_t { kFloat16 = 7, kBfloat16 = 8, kFloat32 = 9, kFloat64 = 10 };

// `native/binding.py` has the same numbers and their texts.
enum Result : int32_t {
  kDone = 0,
  kUnknownType = 1,
  kWrongClass = 2,
  kNoMemory = 3,
  kUnknownLoss = 4,
  kWrongValue = 5
};

// The types of a call: read as Read, computed in Computed, gradients written as Written.
template <class Read, class Computed, class Written>
struct Types {};

// The width of the registers, in bytes.
template <int B>
struct Width {};

constexpr int32_t both(Type read, Type written) { return read * 16 + written; }

// Calls `run(call, types, width)`, which exists for each kind of call.
template <class Call, int B>
ALWAYS_INLINE int32_t dispatch(Call& call, Width<B> width) {
  switch (call.read_type * 16 + call.gradient_type) {
    case both(kFloat32, kFloat32): return run(call, Types<float, float, float>{}, width);
    case both(kFloat64, kFloat64): return run(call, Types<double, double, double>{}, width);
    case both(kFloat16, kFloat16): return run(call, Types<Float16, float, Float16>{}, width);
    case both(kFloat16, kFloat32): return run(call, Types<Float16, float, float>{}, width);
    case both(kBfloat16, kBfloat16): return run(call, Types<Bfloat16, float, Bfloat16>{}, width);
    case both(kBfloat16, kFloat32): return run(call, Types<Bfloat16, float, float>{}, width);
    default: return kUnknownType;
  }
}

#if defined(__x86_64__)
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl")))
#define AVX2 __attribute__((target("avx2")))

template <class Call>
AVX512 int32_t run_avx512(Call& call) { return dispatch(call, Width<64>{}); }

template <class Call>
AVX2 int32_t run_avx2(Call& call) { return dispatch(call, Width<32>{}); }
#endif

template <class Call>
int32_t run_anywhere(Call& call) { return dispatch(call, Width<16>{}); }

// Computes with the widest registers that the call allows and the processor has.
template <class Call>
int32_t run_here(Call& call) {
#if defined(__x86_64__)
  const int32_t most = call.most_vector_bytes;
  const int32_t widest = most < kWidestRegister ? most : kWidestRegister;
  if (widest >= 64) return run_avx512(call);
  if (widest >= 32) return run_avx2(call);
#endif
  return run_anywhere(call);
}

}  // namespace losswire

// Vectors of numbers of a row: loading, storing, exp and sums. The same bits on every processor.
//
// Every operation is one that IEEE 754 defines for each number alone, so that the width of the
// registers, B bytes, makes no difference; only sums depend on an order, which is the same for all
// widths. Compile without contraction (-ffp-contract=off): fused multiplications round differently,
// and not every processor has them.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

namespace losswire {

// Addresses come from messages and need not be aligned.
template <class T>
ALWAYS_INLINE T read(const void* base, int64_t index) {
  T value;
  memcpy(&value, static_cast<const char*>(base) + index * sizeof(T), sizeof value);
  return value;
}

template <class T>
ALWAYS_INLINE void write(void* base, int64_t index, T value) {
  memcpy(static_cast<char*>(base) + index * sizeof(T), &value, sizeof value);
}

enum class Bfloat16 : uint16_t {};
enum class Float16 : uint16_t {};

// The bytes that are added up at a time, whatever the width of the registers.
constexpr int kStepBytes = 64;

template <class T, int kBytes>
struct Register {
  typedef T type __attribute__((vector_size(kBytes)));
};

template <class T, int kBytes>
using Vector = typename Register<T, kBytes>::type;

template <class T, int B>
constexpr int lanes_of = B / static_cast<int>(sizeof(T));

template <class V, class T>
ALWAYS_INLINE V splat(T value) {
  return value - V{};  // an addition would lose the sign of -0
}

template <class V>
ALWAYS_INLINE V load_bytes(const void* base, int64_t offset) {
  V vector;
  memcpy(&vector, static_cast<const char*>(base) + offset, sizeof vector);
  return vector;
}

template <class V>
ALWAYS_INLINE void store_bytes(void* base, int64_t offset, V vector) {
  memcpy(static_cast<char*>(base) + offset, &vector, sizeof vector);
}

// -- Types of 16 bits, in the lower half of 32.

template <int B>
ALWAYS_INLINE Vector<float, B> from_bfloat16(Vector<uint32_t, B> bits) {
  return (Vector<float, B>)(bits << 16);
}

// Rounds to nearest, ties to even; NaN stays NaN.
template <int B>
ALWAYS_INLINE Vector<uint32_t, B> to_bfloat16(Vector<float, B> values) {
  const Vector<uint32_t, B> bits = (Vector<uint32_t, B>)values;
  const Vector<uint32_t, B> rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  return values == values ? rounded : (bits >> 16) | 0x40;
}

// A multiplication moves the exponent; it is exact, for subnormal numbers too.
template <int B>
ALWAYS_INLINE Vector<float, B> from_float16(Vector<uint32_t, B> bits) {
  typedef Vector<uint32_t, B> Words;
  const Vector<float, B> moved = (Vector<float, B>)((bits & 0x7FFF) << 13) * 0x1p112f;
  const Words not_finite = moved >= 65536.0f ? splat<Words>(0x7F800000u) : Words{};
  return (Vector<float, B>)((Words)moved | not_finite | ((bits & 0x8000) << 16));
}

// Rounds to nearest, ties to even. Adding 0.5 to numbers below 2^-14 rounds them as subnormal.
template <int B>
ALWAYS_INLINE Vector<uint32_t, B> to_float16(Vector<float, B> values) {
  typedef Vector<uint32_t, B> Words;
  const Words bits = (Words)values;
  const Vector<float, B> size = (Vector<float, B>)(bits & 0x7FFFFFFF);
  const Words rounded = ((Words)size + 0xFFF + (((Words)size >> 13) & 1)) >> 13;
  const Words subnormal = (Words)(size + 0.5f) - 0x3F000000;
  Words found = size < 0x1p-14f ? subnormal : rounded - (112 << 10);
  found = size >= 65520.0f ? splat<Words>(0x7C00u) : found;
  found = values == values ? found : splat<Words>(0x7E00u);
  return found | ((bits >> 16) & 0x8000);
}

// -- Loading and storing: the type in memory is S, `lowest` its -infinity.

template <class S>
struct Stored {
  ALWAYS_INLINE S lowest() { return -INFINITY; }
  ALWAYS_INLINE S one(const void* base, int64_t i) { return read<S>(base, i); }
  template <int B>
  ALWAYS_INLINE Vector<S, B> load(const void* base, int64_t i) {
    return load_bytes<Vector<S, B>>(base, i * sizeof(S));
  }
  template <int B>
  ALWAYS_INLINE void store(void* base, int64_t i, Vector<S, B> v) {
    store_bytes(base, i * sizeof(S), v);
  }
};

template <int B>
ALWAYS_INLINE Vector<uint32_t, B> load_halves(const void* base, int64_t i) {
  return __builtin_convertvector((load_bytes<Vector<uint16_t, B / 2>>(base, 2 * i)),
                                 Vector<uint32_t, B>);
}

template <int B>
ALWAYS_INLINE void store_halves(void* base, int64_t i, Vector<uint32_t, B> v) {
  store_bytes(base, 2 * i, __builtin_convertvector(v, Vector<uint16_t, B / 2>));
}

template <>
struct Stored<Bfloat16> {
  ALWAYS_INLINE Bfloat16 lowest() { return Bfloat16{0xFF80}; }
  ALWAYS_INLINE float one(const void* base, int64_t i) {
    return from_bfloat16<16>(Vector<uint32_t, 16>{read<uint16_t>(base, i)})[0];
  }
  template <int B>
  ALWAYS_INLINE Vector<float, B> load(const void* base, int64_t i) {
    return from_bfloat16<B>(load_halves<B>(base, i));
  }
  template <int B>
  ALWAYS_INLINE void store(void* base, int64_t i, Vector<float, B> v) {
    store_halves<B>(base, i, to_bfloat16<B>(v));
  }
};

template <>
struct Stored<Float16> {
  ALWAYS_INLINE Float16 lowest() { return Float16{0xFC00}; }
  ALWAYS_INLINE float one(const void* base, int64_t i) {
    return from_float16<16>(Vector<uint32_t, 16>{read<uint16_t>(base, i)})[0];
  }
  template <int B>
  ALWAYS_INLINE Vector<float, B> load(const void* base, int64_t i) {
    return from_float16<B>(load_halves<B>(base, i));
  }
  template <int B>
  ALWAYS_INLINE void store(void* base, int64_t i, Vector<float, B> v) {
    store_halves<B>(base, i, to_float16<B>(v));
  }
};

// The last elements of a row, fewer than a vector holds.
template <class S, int kCount>
struct Rest {
  S elements[kCount];

  ALWAYS_INLINE void load(Rest& rest, const void* base, int64_t i, int64_t count, S fill) {
    for (int k = 0; k < kCount; k++) rest.elements[k] = fill;
    memcpy(rest.elements, static_cast<const char*>(base) + i * sizeof(S), count * sizeof(S));
  }

  ALWAYS_INLINE void store(const Rest& rest, void* base, int64_t i, int64_t count) {
    memcpy(static_cast<char*>(base) + i * sizeof(S), rest.elements, count * sizeof(S));
  }
};

// -- exp of numbers that are not above 0, to within a unit in the last place.
// exp(x) = 2^n * exp(r) with r = x - n log 2 in [-log(2)/2, log(2)/2], log 2 in two parts of which
// n times the first is exact. NaN stays NaN; -infinity gives 0.

// value * 2^n from n + 2 * 127 (2 * 1023), in two factors because 2^n itself may be subnormal.
template <int B>
ALWAYS_INLINE Vector<float, B> times_power(Vector<float, B> value, Vector<uint32_t, B> n) {
  const Vector<uint32_t, B> half = n >> 1;
  return value * (Vector<float, B>)(half << 23) * (Vector<float, B>)((n - half) << 23);
}

template <int B>
ALWAYS_INLINE Vector<double, B> times_power(Vector<double, B> value, Vector<uint64_t, B> n) {
  const Vector<uint64_t, B> half = n >> 1;
  return value * (Vector<double, B>)(half << 52) * (Vector<double, B>)((n - half) << 52);
}

// Adding 1.5 * 2^23 (2^52) rounds to an integer, and leaves it in the lowest bits.
template <int B>
ALWAYS_INLINE Vector<float, B> exp_below_0(Vector<float, B> x) {
  typedef Vector<float, B> V;
  const V least = splat<V>(-104.0f);
  x = x < least ? least : x;
  const V shifted = x * 1.44269504f + 12582912.0f;
  const V n = shifted - 12582912.0f;
  const V r = x - n * 0.693359375f + n * 2.12194440e-4f;
  V p = splat<V>(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const Vector<uint32_t, B> power = (Vector<uint32_t, B>)shifted - (0x4B400000u - 254u);
  return times_power<B>(p * (r * r) + r + 1.0f, power);
}

// Returns the series of (exp(r) - 1 - r - r^2 / 2) / r^3 by Taylor: |r|^14 / 14! is below 2^-57.
template <int B>
ALWAYS_INLINE Vector<double, B> exp_series(Vector<double, B> r) {
  Vector<double, B> p = splat<Vector<double, B>>(1.0 / 6227020800.0);
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  return p;
}

template <int B>
ALWAYS_INLINE Vector<double, B> exp_below_0(Vector<double, B> x) {
  typedef Vector<double, B> V;
  const V least = splat<V>(-746.0);
  x = x < least ? least : x;
  const V shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const V n = shifted - 6755399441055744.0;
  const V r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10;
  V p = exp_series<B>(r);
  p = p * r + 0.5;
  const Vector<uint64_t, B> power = (Vector<uint64_t, B>)shifted - (0x4338000000000000u - 2046u);
  return times_power<B>(p * (r * r) + r + 1.0, power);
}

// -- Absolute values.

template <int B>
ALWAYS_INLINE Vector<float, B> absolute_of(Vector<float, B> x) {
  return (Vector<float, B>)((Vector<uint32_t, B>)x & 0x7FFFFFFFu);
}

template <int B>
ALWAYS_INLINE Vector<double, B> absolute_of(Vector<double, B> x) {
  return (Vector<double, B>)((Vector<uint64_t, B>)x & 0x7FFFFFFFFFFFFFFFu);
}

// -- float as double, and back.

template <int B>
struct Widened {
  Vector<double, B> low;
  Vector<double, B> high;
};

template <int B>
ALWAYS_INLINE Widened<B> widened(Vector<float, B> v) {
  Vector<float, B / 2> halves[2];
  memcpy(halves, &v, sizeof v);
  return {__builtin_convertvector(halves[0], Vector<double, B>),
          __builtin_convertvector(halves[1], Vector<double, B>)};
}

template <int B>
ALWAYS_INLINE Vector<float, B> narrowed(const Widened<B>& wide) {
  const Vector<float, B / 2> halves[2] = {__builtin_convertvector(wide.low, Vector<float, B / 2>),
                                          __builtin_convertvector(wide.high, Vector<float, B / 2>)};
  Vector<float, B> v;
  memcpy(&v, halves, sizeof v);
  return v;
}

// -- Sums are formed in double, of every eighth number, and these in a fixed order.

template <int B>
struct Sum {
  static constexpr int kParts = kStepBytes / B;
  Vector<double, B> parts[kParts] = {};

  // Adds the numbers of a register, which is number `part` of the step.
  ALWAYS_INLINE void add(Sum& sum, int part, Vector<float, B> v) {
    const Widened<B> wide = widened<B>(v);
    sum.parts[2 * part % kParts] += wide.low;
    sum.parts[(2 * part + 1) % kParts] += wide.high;
  }

  ALWAYS_INLINE void add(Sum& sum, int part, Vector<double, B> v) { sum.parts[part] += v; }

  ALWAYS_INLINE double total(const Sum& sum) {
    double all[8];
    memcpy(all, sum.parts, sizeof all);
    return ((all[0] + all[4]) + (all[2] + all[6])) + ((all[1] + all[5]) + (all[3] + all[7]));
  }
};

}  // namespace losswire

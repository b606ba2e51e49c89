// Vectors of one row: loading, storing, and exp. The same bits on every processor.
//
// Every operation is one that IEEE 754 defines, in the same order whatever the width of the
// processor's registers: a vector here is 64 bytes, which the compiler makes of as many registers as
// it takes. Compile without contraction (-ffp-contract=off): a fused multiplication would round
// otherwise where there is one.
#pragma once

#include <stdint.h>
#include <string.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

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

typedef _Float16 Float16;

typedef float Floats __attribute__((vector_size(64)));
typedef double Doubles __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef int64_t Longs __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef Float16 Float16s __attribute__((vector_size(32)));

// What is computed in: float or double.
template <class T>
struct Vector;

template <>
struct Vector<float> {
  typedef Floats type;
  static constexpr int lanes = 16;
};

template <>
struct Vector<double> {
  typedef Doubles type;
  static constexpr int lanes = 8;
};

template <class V, class T>
ALWAYS_INLINE V splat(T value) {
  return V{} + value;
}

// -- Loading and storing: the type in memory is S, the type computed in is T.

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

// Rounds to nearest, ties to even; what is not a number stays so.
ALWAYS_INLINE Halves to_bfloat16(Floats values) {
  Words bits = (Words)values;
  Words rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  Words quiet = (bits >> 16) | 0x40;
  return __builtin_convertvector(values == values ? rounded : quiet, Halves);
}

template <class S>
struct Stored;

template <>
struct Stored<float> {
  ALWAYS_INLINE float one(const void* base, int64_t i) { return read<float>(base, i); }
  ALWAYS_INLINE Floats load(const void* base, int64_t i) { return load_bytes<Floats>(base, 4 * i); }
  ALWAYS_INLINE void store(void* base, int64_t i, Floats v) { store_bytes(base, 4 * i, v); }
};

template <>
struct Stored<double> {
  ALWAYS_INLINE double one(const void* base, int64_t i) { return read<double>(base, i); }
  ALWAYS_INLINE Doubles load(const void* base, int64_t i) {
    return load_bytes<Doubles>(base, 8 * i);
  }
  ALWAYS_INLINE void store(void* base, int64_t i, Doubles v) { store_bytes(base, 8 * i, v); }
};

template <>
struct Stored<Bfloat16> {
  ALWAYS_INLINE float one(const void* base, int64_t i) {
    uint32_t bits = static_cast<uint32_t>(read<uint16_t>(base, i)) << 16;
    return read<float>(&bits, 0);
  }
  ALWAYS_INLINE Floats load(const void* base, int64_t i) {
    return (Floats)(__builtin_convertvector(load_bytes<Halves>(base, 2 * i), Words) << 16);
  }
  ALWAYS_INLINE void store(void* base, int64_t i, Floats v) {
    store_bytes(base, 2 * i, to_bfloat16(v));
  }
};

template <>
struct Stored<Float16> {
  ALWAYS_INLINE float one(const void* base, int64_t i) { return read<Float16>(base, i); }
  ALWAYS_INLINE Floats load(const void* base, int64_t i) {
    return __builtin_convertvector(load_bytes<Float16s>(base, 2 * i), Floats);
  }
  ALWAYS_INLINE void store(void* base, int64_t i, Floats v) {
    store_bytes(base, 2 * i, __builtin_convertvector(v, Float16s));
  }
};

// The last elements of a row, where there are fewer than a vector has; `fill` stands for the rest.
template <class S, class T>
ALWAYS_INLINE typename Vector<T>::type load_some(const void* base, int64_t i, int64_t count, S fill) {
  constexpr int lanes = Vector<T>::lanes;
  S padded[lanes];
  for (int k = 0; k < lanes; k++) padded[k] = fill;
  memcpy(padded, static_cast<const char*>(base) + i * sizeof(S), count * sizeof(S));
  return Stored<S>::load(padded, 0);
}

template <class S, class T>
ALWAYS_INLINE void store_some(void* base, int64_t i, int64_t count, typename Vector<T>::type v) {
  S padded[Vector<T>::lanes];
  Stored<S>::store(padded, 0, v);
  memcpy(static_cast<char*>(base) + i * sizeof(S), padded, count * sizeof(S));
}

// -- exp of numbers that are not above 0, to within a unit in the last place.
// exp(x) = 2^n * exp(r) with r = x - n log 2 in [-log(2)/2, log(2)/2], log 2 in two parts of which
// n times the first is exact. What is not a number stays so; -infinity gives 0.

// value * 2^n, in two factors because 2^n itself may be below what a normal number can be.
ALWAYS_INLINE Floats times_power(Floats value, Ints n) {
  Ints half = n >> 1;
  return value * (Floats)((half + 127) << 23) * (Floats)((n - half + 127) << 23);
}

ALWAYS_INLINE Doubles times_power(Doubles value, Longs n) {
  Longs half = n >> 1;
  return value * (Doubles)((half + 1023) << 52) * (Doubles)((n - half + 1023) << 52);
}

// Adding 1.5 * 2^23 (2^52) rounds to an integer, and leaves it in the lowest bits.
ALWAYS_INLINE Floats exp_below_0(Floats x) {
  const Floats least = splat<Floats>(-104.0f);
  x = x < least ? least : x;
  Floats shifted = x * 1.44269504f + 12582912.0f;
  Floats n = shifted - 12582912.0f;
  Floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Floats p = splat<Floats>(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return times_power(p * (r * r) + r + 1.0f, (Ints)shifted - 0x4B400000);
}

ALWAYS_INLINE Doubles exp_below_0(Doubles x) {
  const Doubles least = splat<Doubles>(-746.0);
  x = x < least ? least : x;
  Doubles shifted = x * 1.4426950408889634 + 6755399441055744.0;
  Doubles n = shifted - 6755399441055744.0;
  Doubles r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10;
  // Taylor's series: |r|^14 / 14! is below 2^-57.
  Doubles p = splat<Doubles>(1.0 / 6227020800.0);
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
  p = p * r + 0.5;
  return times_power(p * (r * r) + r + 1.0, (Longs)shifted - 0x4338000000000000);
}

// -- Reducing a vector to one number, in a fixed order.

typedef float EightFloats __attribute__((vector_size(32)));

// Sums are formed in double: eight of them, added at the end.
struct Sum {
  Doubles low{}, high{};

  ALWAYS_INLINE void take(Sum& sum, Floats v) {
    EightFloats halves[2];
    memcpy(halves, &v, sizeof v);
    sum.low += __builtin_convertvector(halves[0], Doubles);
    sum.high += __builtin_convertvector(halves[1], Doubles);
  }

  ALWAYS_INLINE void take(Sum& sum, Doubles v) { sum.low += v; }

  ALWAYS_INLINE double total(const Sum& sum) {
    Doubles all = sum.low + sum.high;
    return ((all[0] + all[4]) + (all[2] + all[6])) + ((all[1] + all[5]) + (all[3] + all[7]));
  }
};

}  // namespace losswire

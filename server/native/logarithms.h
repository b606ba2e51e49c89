// Logarithms of vectors, in two parts whose sum is rounded once. The same bits everywhere.
#pragma once

#include "vectors.h"

namespace losswire {

// The parts add up to the logarithm: a multiple of log 2, exact but for a few last places of the
// smaller part, and a remainder below 0.7.
template <class V>
struct Log {
  V large;
  V small;
};

// (log(1 + f) - 2s) / s^3 in z = s^2, s = f / (2 + f), for f in [-1/2, 1]: interpolated at
// Chebyshev's points, off by less than 2^-31 and 2^-62 of the logarithm.
template <int B>
ALWAYS_INLINE Vector<float, B> log_series(Vector<float, B> z) {
  Vector<float, B> p = splat<Vector<float, B>>(0.2322432922f);
  p = p * z + 0.2170657580f;
  p = p * z + 0.2859235799f;
  p = p * z + 0.3999970633f;
  return p * z + 0.6666666732f;
}

template <int B>
ALWAYS_INLINE Vector<double, B> log_series(Vector<double, B> z) {
  Vector<double, B> p = splat<Vector<double, B>>(0.1563057780092285045);
  p = p * z + 0.07492143795550767301;
  p = p * z + 0.1084517839488001482;
  p = p * z + 0.1173427906130319746;
  p = p * z + 0.1333517863144925584;
  p = p * z + 0.1538454396486054929;
  p = p * z + 0.1818181989796271438;
  p = p * z + 0.2222222219823677056;
  p = p * z + 0.2857142857160009929;
  p = p * z + 0.3999999999999952251;
  return p * z + 0.6666666666666666689;
}

// log(1 + f) of f in [-1/2, 1]: written as f - s f, 2s does not have the rounding of s.
template <int B, class V>
ALWAYS_INLINE V log_near_1(V f) {
  const V s = f / (f + 2);
  const V z = s * s;
  return f - s * (f - z * log_series<B>(z));
}

// Numbers as (1 + f) 2^k with 1 + f in [sqrt(1/2), sqrt(2)], and log 2 in two parts of which k
// times the first is exact.
template <class T>
struct Scale;

template <>
struct Scale<float> {
  typedef uint32_t Word;
  static constexpr int kBits = 23;
  static constexpr Word kBias = 127, kRoot = 0x3F800000 - 0x3F3504F3, kInteger = 0x4B400000;
  static constexpr float kShift = 12582912.0f, kLeast = 0x1p-126f, kUp = 0x1p54f;
  static constexpr float kLog2 = 0.693359375f, kLog2Tail = -2.12194440e-4f;
};

template <>
struct Scale<double> {
  typedef uint64_t Word;
  static constexpr int kBits = 52;
  static constexpr Word kBias = 1023, kRoot = 0x3FF0000000000000 - 0x3FE6A09E667F3BCD;
  static constexpr Word kInteger = 0x4338000000000000;
  static constexpr double kShift = 6755399441055744.0, kLeast = 0x1p-1022, kUp = 0x1p54;
  static constexpr double kLog2 = 6.93147180369123816490e-01;
  static constexpr double kLog2Tail = 1.90821492927058770002e-10;
};

// The logarithm of a positive number; of any other, an unspecified number.
template <class T, int B>
ALWAYS_INLINE Log<Vector<T, B>> log_of(Vector<T, B> x) {
  typedef Vector<T, B> V;
  typedef Scale<T> S;
  typedef Vector<typename S::Word, B> Words;
  const V least = splat<V>(S::kLeast), zero = V{}, up = splat<V>(T(54));
  const Words bits = (Words)(x < least ? x * S::kUp : x);
  const Words power = ((bits + S::kRoot) >> S::kBits) - S::kBias;
  const V near = (V)(bits - (power << S::kBits)) - 1;
  const V k = (V)(power + S::kInteger) - S::kShift - (x < least ? up : zero);
  return {k * S::kLog2, log_near_1<B>(near) + k * S::kLog2Tail};
}

// log(1 + x) of x in [0, 1].
template <class T, int B>
ALWAYS_INLINE Log<Vector<T, B>> log_above_1(Vector<T, B> x) {
  typedef Vector<T, B> V;
  typedef Scale<T> S;
  const V zero = V{}, half = splat<V>(T(0.5));
  // (x - 1) / 2 is exact from 1/2 on.
  const V log = log_near_1<B>(x < half ? x : (x - 1) * half);
  return {x < half ? zero : splat<V>(S::kLog2), x < half ? log : log + S::kLog2Tail};
}

// log(1 - x) of x in [0, 1); of 1, an unspecified number.
template <class T, int B>
ALWAYS_INLINE Log<Vector<T, B>> log_below_1(Vector<T, B> x) {
  typedef Vector<T, B> V;
  const V zero = V{}, half = splat<V>(T(0.5));
  // 1 - x is exact from 1/2 on.
  const Log<V> far = log_of<T, B>(1 - x);
  return {x < half ? zero : far.large, x < half ? log_near_1<B>(-x) : far.small};
}

}  // namespace losswire

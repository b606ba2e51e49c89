// exp to within 0.55 units in the last place, for losses whose gradient it is. NaN stays NaN.
//
// `exp_below_0` of vectors.h is faster: it errs by up to a unit, which disappears in sums and beside
// what is added to it.
#pragma once

#include "vectors.h"

namespace losswire {

// In double, of which float is the rounding.
template <int B>
ALWAYS_INLINE Vector<double, B> exp_for_float(Vector<double, B> x) {
  typedef Vector<double, B> V;
  const V shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const V r = x - (shifted - 6755399441055744.0) * 0.6931471805599453;
  // (exp(r) - 1 - r) / r^2 interpolated at Chebyshev's points: exp is off by less than 2^-32.
  V p = splat<V>(0.00019891080463998843);
  p = p * r + 0.0013933730715792083;
  p = p * r + 0.008333310844647862;
  p = p * r + 0.04166646419740569;
  p = p * r + 0.16666666681704215;
  p = p * r + 0.500000001353873;
  const Vector<uint64_t, B> power = (Vector<uint64_t, B>)shifted - (0x4338000000000000u - 1023u);
  return (p * (r * r) + (r + 1.0)) * (V)(power << 52);
}

// Bounded where the result underflows to 0 or overflows to infinity.
template <int B>
ALWAYS_INLINE Vector<float, B> exp_of(Vector<float, B> x) {
  typedef Vector<float, B> V;
  const V least = splat<V>(-104.0f), most = splat<V>(89.0f);
  x = x < least ? least : x;
  x = x > most ? most : x;
  const Widened<B> wide = widened<B>(x);
  return narrowed<B>({exp_for_float<B>(wide.low), exp_for_float<B>(wide.high)});
}

// x = n log 2 + r + tail. With r = near + rest, where near^2 is exact, exp(x) / 2^n is
// 1 + r + near^2 / 2 + small, and what rounding removes from the first two sums is added to small.
template <int B>
ALWAYS_INLINE Vector<double, B> exp_of(Vector<double, B> x) {
  typedef Vector<double, B> V;
  typedef Vector<uint64_t, B> Words;
  const V least = splat<V>(-746.0), most = splat<V>(710.0);
  x = x < least ? least : x;
  x = x > most ? most : x;
  const V shifted = x * 1.4426950408889634 + 6755399441055744.0;
  const V n = shifted - 6755399441055744.0;
  const V reduced = x - n * 0.693147180369123816490, second = n * 1.90821492927058770002e-10;
  const V r = reduced - second, tail = (reduced - r) - second;
  const V p = exp_series<B>(r);
  const V near = (V)((Words)r & 0xFFFFFFFFF8000000u), half_square = 0.5 * near * near;
  const V small = p * (r * r * r) + ((r - near) * (r + near) * 0.5 + (tail + r * tail));
  const V first = r + 1.0, sum = first + half_square;
  const V removed = (r - (first - 1.0)) + (half_square - (sum - first));
  const Words power = (Words)shifted - (0x4338000000000000u - 2046u);
  return times_power<B>(sum + (small + removed), power);
}

}  // namespace losswire

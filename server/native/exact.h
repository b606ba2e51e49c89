// Sums and logarithms in double, with the part that rounding removed.
//
// The C library's logarithm differs between processors with and without fused multiplications; this
// one does not.
#pragma once

#include "vectors.h"

namespace losswire {

struct Exact {
  double value;
  double tail;  // the part that rounding removed from the value

  // Where the value is infinite, the tail is NaN.
  ALWAYS_INLINE double rounded(const Exact& exact) {
    return isfinite(exact.value) ? exact.value + exact.tail : exact.value;
  }
};

// Adds without an error (Knuth).
ALWAYS_INLINE Exact sum_of(double a, double b) {
  const double sum = a + b;
  const double second = sum - a;
  return {sum, (a - (sum - second)) + (b - second)};
}

// The logarithm of x >= 1 or NaN, its tail to within 1e-17. x = 2^k (1 + f) with 1 + f in
// [sqrt(1/2), sqrt(2)], and log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)) with s = f / (2 + f); R is
// the polynomial of Sun's fdlibm, off by less than 2^-58. log 2 is in two parts of which k times the
// first is exact.
ALWAYS_INLINE Exact logarithm_of(double x) {
  if (x != x) return {x, x};
  const int64_t bits = read<int64_t>(&x, 0);
  const int64_t k = (bits - 0x3FE6A09E667F3BCD) >> 52;
  const int64_t scaled = bits - k * (int64_t{1} << 52);
  const double f = read<double>(&scaled, 0) - 1.0;
  const double s = f / (2.0 + f);
  const double z = s * s;
  double series = 1.479819860511658591e-01;
  series = series * z + 1.531383769920937332e-01;
  series = series * z + 1.818357216161805012e-01;
  series = series * z + 2.222219843214978396e-01;
  series = series * z + 2.857142874366239149e-01;
  series = series * z + 3.999999999940941908e-01;
  series = series * z + 6.666666666666735130e-01;
  const double half_square = 0.5 * f * f;
  const double small = s * (half_square + series * z) - half_square;

  const double times = static_cast<double>(k);
  const Exact large = sum_of(times * 6.93147180369123816490e-01, f);
  const Exact all = sum_of(large.value, small + times * 1.90821492927058770002e-10);
  return {all.value, all.tail + large.tail};
}

}  // namespace losswire

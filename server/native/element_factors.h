// Elements of a loss, and the factors that turn their derivatives into gradients.
#pragma once

#include "vectors.h"

namespace losswire {

// Elements of the type computed in, in whole steps.
template <class T>
struct Piece {
  int64_t count;
  const void* input;
  const void* target;
  const void* weight;        // or null
  const void* pos_weight;    // or null
  const void* removed;       // of T: not 0 gives 0; or null
  const void* coefficients;  // of T; null: all are `coefficient` / `divisor`
  void* input_gradient;      // or null
  void* target_gradient;     // or null
  void* values;              // or null
  double coefficient;
  double divisor;
  T option;
  double bound;              // the option before it is rounded
};

template <class V>
ALWAYS_INLINE V bounded(V number, V most) {
  return number <= -most ? -most : number >= most ? most : number;
}

template <int B>
ALWAYS_INLINE Widened<B> product(const Widened<B>& a, const Widened<B>& b) {
  return {a.low * b.low, a.high * b.high};
}

// Returns the factor that all gradients of a piece have. A loss's own factor multiplies a mean's
// coefficient, as in torch: twice the number may overflow.
template <class F, class T>
ALWAYS_INLINE double shared_factor(const Piece<T>& piece) {
  const bool alone = !piece.weight && !piece.coefficients;
  return piece.coefficient / piece.divisor * (alone ? F::kFactor : 1) /
         (F::kOverBound ? piece.bound : 1.0);
}

// Returns whether a gradient in float is the product of two floats.
template <class F>
ALWAYS_INLINE bool is_plain_product(const Piece<float>& piece) {
  const double shared = shared_factor<F>(piece);
  const bool alone = !piece.weight && !piece.coefficients;
  const bool one = shared == 1.0 && !(piece.weight && piece.coefficients);
  return (alone ? static_cast<float>(shared) == shared : one) &&
         (!F::kBounded || piece.option == piece.bound);
}

template <class F>
ALWAYS_INLINE bool is_plain_product(const Piece<double>&) { return true; }

// Returns the number, within the bounds that the loss has, times all factors: in float, or in double
// and rounded once.
template <class F, int B, bool kPlain>
ALWAYS_INLINE Vector<float, B> times_factors(const Piece<float>& piece, int64_t at,
                                             Vector<float, B> number) {
  typedef Vector<float, B> V;
  typedef Vector<double, B> Wide;
  typedef Stored<float> Memory;
  const double shared = shared_factor<F>(piece);
  const void* factors = piece.weight ? piece.weight : piece.coefficients;
  if (factors) number *= F::kFactor;
  if (kPlain) {
    if (F::kBounded) number = bounded(number, splat<V>(piece.option));
    if (factors) return number * Memory::load<B>(factors, at);
    return number * static_cast<float>(shared);
  }
  Widened<B> wide = widened<B>(number);
  if (F::kBounded) {
    const Wide most = splat<Wide>(piece.bound);
    wide = {bounded(wide.low, most), bounded(wide.high, most)};
  }
  wide = {wide.low * shared, wide.high * shared};
  if (piece.weight) wide = product(wide, widened<B>(Memory::load<B>(piece.weight, at)));
  if (piece.coefficients) wide = product(wide, widened<B>(Memory::load<B>(piece.coefficients, at)));
  return narrowed<B>(wide);
}

// The same in double, each step rounded, of a number that is within its bounds.
template <class F, int B, bool kPlain>
ALWAYS_INLINE Vector<double, B> times_factors(const Piece<double>& piece, int64_t at,
                                              Vector<double, B> number) {
  typedef Vector<double, B> V;
  typedef Stored<double> Memory;
  const bool alone = !piece.weight && !piece.coefficients;
  V factor = piece.coefficients ? Memory::load<B>(piece.coefficients, at)
                                : splat<V>(piece.coefficient * (alone ? F::kFactor : 1));
  if (piece.weight) factor *= Memory::load<B>(piece.weight, at);
  const V found = (alone ? number : number * F::kFactor) * factor;
  return piece.divisor == 1.0 ? found : found / piece.divisor;
}

}  // namespace losswire

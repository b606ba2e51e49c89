// Losses of single elements: a value and its derivative, for a register of each.
//
// The derivative is with respect to the input; with respect to the target it is the negative, where
// a loss has one. Weights, sums and memory are handled elsewhere. Infinities give the limits of the
// formulas, and NaN gives torch's results, whose order of comparisons this follows. Values are not
// checked here: callers with arrays have checked them in Python, and `are_accepted` in
// elements_message.cc checks those in a message. A loss whose record has an enforced rule of values
// must be added to it.
#pragma once

#include "exponentials.h"
#include "logarithms.h"
#include "vectors.h"

namespace losswire {

template <class V>
struct Found {
  V value;
  V derivative;    // over kFactor; with kDivides its numerator
  V divisor = {};  // with kDivides
};

// What a loss has unless it says otherwise.
struct Plain {
  static constexpr bool kHasPosWeight = false, kDivides = false;
  // Whether the derivative in float is yet to be bounded by the option, and divided by it.
  static constexpr bool kBounded = false, kOverBound = false;
  static constexpr int kFactor = 1;
};

// The inputs of a loss.
template <class V>
struct Given {
  V input;
  V target;
  V pos_weight;  // if the loss has one
  V option;    // beta or delta
};

struct Mse : Plain {
  static constexpr int kFactor = 2;

  // (x - y)^2
  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V difference = given.input - given.target;
    return {difference * difference, difference};
  }
};

struct L1 : Plain {
  // |x - y|, whose derivative is 0 at 0 and at NaN.
  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V difference = given.input - given.target, zero = V{}, one = splat<V>(T(1));
    return {absolute_of<B>(difference), difference > zero ? one : difference < zero ? -one : zero};
  }
};

struct SmoothL1 : Plain {
  static constexpr bool kBounded = true, kOverBound = true;

  // (x - y)^2 / (2 beta) near 0, |x - y| - beta / 2 elsewhere
  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V difference = given.input - given.target, one = splat<V>(T(1));
    const V size = absolute_of<B>(difference), beta = given.option;
    const V square = T(0.5) * size * size / beta, line = size - T(0.5) * beta;
    const V value = size < beta ? square : line;
    if constexpr (sizeof(T) == sizeof(float)) return {value, difference};
    const V near = difference / beta;
    return {value, difference <= -beta ? -one : difference >= beta ? one : near};
  }
};

struct Huber : Plain {
  static constexpr bool kBounded = true;

  // (x - y)^2 / 2 near 0, delta (|x - y| - delta / 2) elsewhere
  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V difference = given.input - given.target, delta = given.option;
    const V size = absolute_of<B>(difference);
    const V square = T(0.5) * size * size, line = delta * (size - T(0.5) * delta);
    const V value = size <= delta ? square : line;
    if constexpr (sizeof(T) == sizeof(float)) return {value, difference};
    return {value, difference <= -delta ? -delta : difference >= delta ? delta : difference};
  }
};

// Binary cross entropy of logits. With e = exp(-|x|) and q = e / (1 + e), which is the smaller of
// sigmoid(x) and 1 - sigmoid(x):
//
//   x >= 0:  value = (1 - y) |x| + l log(1 + e)    derivative =  (1 - y) - l q
//   x < 0:   value =     p y |x| + l log(1 + e)    derivative = -(p y - l q)
//
// with l = 1 - y + p y. So no terms as large as x cancel.
template <bool kWeighted>
struct BceWithLogits : Plain {
  static constexpr bool kHasPosWeight = kWeighted;

  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V logit = given.input, no = T(1) - given.target;
    const V yes = kWeighted ? given.pos_weight * given.target : given.target;
    const V size = absolute_of<B>(logit);
    const V power = exp_below_0<B>(-size);
    Log<V> log = log_above_1<T, B>(power);
    V share = power / (power + 1);
    if (kWeighted) {
      const V both = no + yes;
      log = {log.large * both, log.small * both};
      share *= both;
    }
    const V zero = V{}, factor = logit < zero ? yes : no;
    // A probability of 0 adds 0, also where the logit is infinite; a weight of 0 multiplies.
    const V probability = logit < zero ? given.target : no;
    const V rest = probability == zero ? zero : factor * size;
    // The rounding error of the sum is as large as that of its terms, so it is added back.
    const V sum = rest + log.large, second = sum - rest;
    const V tail = (rest - (sum - second)) + (log.large - second);
    const V value = sum + (log.small + (sum - sum == zero ? tail : zero));
    return {value, logit < zero ? share - yes : no - share};
  }
};

// Binary cross entropy of probabilities. Logarithms are at least -100, and x (1 - x) at least 1e-12
// in the derivative.
struct Bce : Plain {
  static constexpr bool kDivides = true;

  // -y log(x) - (1 - y) log(1 - x)
  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V share = given.input, yes = given.target, no = T(1) - given.target;
    const V rest = T(1) - share, least = splat<V>(T(1e-12));
    const Log<V> log = bounded<T>(log_of<T, B>(share), share);
    const Log<V> other = bounded<T>(log_below_1<T, B>(share), rest);
    const V spread = rest * share;
    return {-((yes * log.large + no * other.large) + (yes * log.small + no * other.small)),
            share - yes, spread < least ? least : spread};
  }

 private:
  // Returns -100 as the logarithm of numbers below exp(-100).
  template <class T, class V>
  ALWAYS_INLINE Log<V> bounded(const Log<V>& log, V number) {
    const V least = splat<V>(T(3.720075976020836e-44)), lowest = splat<V>(T(-100)), zero = V{};
    return {number < least ? lowest : log.large, number < least ? zero : log.small};
  }
};

struct KlDiv : Plain {
  // y log(y) - y x, which is 0 where y is 0, also for an infinite x
  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V share = given.target, zero = V{}, not_a_number = splat<V>(T(NAN));
    const V infinite = splat<V>(T(INFINITY));
    const Log<V> log = log_of<T, B>(share);
    // Of 16-bit numbers this product is exact; a difference from x would not be.
    V product = share * given.input;
    const V size = absolute_of<B>(given.input);
    product = share == zero ? (size == infinite ? zero : product) : product;
    V value = share * (log.large + log.small) - product;
    value = share == zero || share == infinite ? share - product : value;
    return {share < zero ? not_a_number : value, -share};
  }
};

struct KlDivLog : Plain {
  // exp(y) (y - x), which is 0 where y is -infinity
  template <class T, int B, class V>
  ALWAYS_INLINE Found<V> of(const Given<V>& given) {
    const V zero = V{}, infinite = splat<V>(T(INFINITY));
    const V share = exp_of<B>(given.target), difference = given.target - given.input;
    // A share that underflows is more than 0.
    const V value = absolute_of<B>(difference) == infinite ? difference : share * difference;
    const V none = given.input == given.input ? zero : given.input;  // NaN stays
    return {given.target == -infinite ? none : value, -share};
  }
};

}  // namespace losswire

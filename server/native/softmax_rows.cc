// Cross entropy of rows of logits with class indices: values, gradients and factors. And the
// negative log-likelihood of rows of log-probabilities, which is the same without the softmax.
//
// With lse = log(sum(exp(x))) of a row x of C classes, target t, class weights w, smoothing e:
//
//   value    = (1 - e) w_t (lse - x_t) + e / C sum_j w_j (lse - x_j)
//   gradient = c ((1 - e) w_t + e / C sum_j w_j) exp(x - lse) - c e / C w - c (1 - e) w_t at t
//
// where c is the gradient with respect to the value. A row's own numbers (logarithm, value,
// factors) are kept in double; nothing is formed that grows with x. Each row is read into the cache
// once and its gradient written once. No row depends on another row or on its position.
#include <stdlib.h>

#include "calls.h"
#include "exact.h"

namespace losswire {
namespace {

// One call. `native/binding.py` has the same structure.
struct SoftmaxRows {
  int64_t rows;
  int64_t classes;
  const void* logits;         // (rows, classes) of read_type; or log-probabilities
  const void* target;         // (rows) of int64: a class or ignore_index
  const void* weight;         // (classes) of the type computed in, or null
  const void* removed;        // (rows) of bytes: not 0 counts as ignored; or null
  const void* coefficients;   // double, one for each row or one for all; null: no gradient
  int64_t coefficient_step;   // from one row to the next: 1 or 0
  double divisor;             // of all coefficients
  void* gradient;             // (rows, classes) of gradient_type, or null
  void* values;               // (rows) of the type computed in, or null
  void* factors;              // 3 x (rows) of double, `factor_step` apart: lse, scale, lse_tail
  int64_t factor_step;
  int64_t ignore_index;
  double smoothing;
  int32_t read_type;
  int32_t gradient_type;
  int32_t most_vector_bytes;  // the widest registers to use
  int32_t likelihood;         // whether these are log-probabilities: no smoothing, no factors
  double total;               // result: the sum of the values
};

template <class T, class G>
ALWAYS_INLINE void write_one(void* gradient, int64_t i, T value) {
  Rest<G, lanes_of<T, 16>> rest;
  Stored<G>::template store<16>(rest.elements, 0, splat<Vector<T, 16>>(value));
  write<G>(gradient, i, rest.elements[0]);
}

template <class S, class T, int B>
ALWAYS_INLINE T highest_of(const void* logits, int64_t count) {
  typedef Vector<T, B> V;
  constexpr int lanes = lanes_of<T, B>;
  const V lowest = splat<V>(static_cast<T>(-INFINITY));
  V best[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    UNROLL for (int k = 0; k < 4; k++) {
      const V x = Stored<S>::template load<B>(logits, i + k * lanes);
      best[k] = x > best[k] ? x : best[k];
    }
  }
  for (; i + lanes <= count; i += lanes) {
    const V x = Stored<S>::template load<B>(logits, i);
    best[0] = x > best[0] ? x : best[0];
  }
  UNROLL for (int k = 1; k < 4; k++) best[0] = best[k] > best[0] ? best[k] : best[0];
  T found = best[0][0];
  UNROLL for (int k = 1; k < lanes; k++) found = best[0][k] > found ? best[0][k] : found;
  for (; i < count; i++) {
    const T x = Stored<S>::one(logits, i);
    found = x > found ? x : found;
  }
  return found;
}

// Adds up exp(x - highest) of one step, and stores each in `kept` if kKeep.
template <class S, class T, int B, bool kKeep>
ALWAYS_INLINE void add_powers(Sum<B>& sum, const void* logits, int64_t i, T highest, void* kept) {
  UNROLL for (int part = 0; part < kStepBytes / B; part++) {
    const int64_t at = i + part * lanes_of<T, B>;
    const Vector<T, B> power = exp_below_0<B>(Stored<S>::template load<B>(logits, at) - highest);
    if (kKeep) Stored<T>::template store<B>(kept, at, power);
    Sum<B>::add(sum, part, power);
  }
}

template <class S, class T, int B, bool kKeep>
ALWAYS_INLINE double powers_of(const void* logits, int64_t count, T highest, void* kept) {
  constexpr int lanes = lanes_of<T, kStepBytes>;
  Sum<B> sum;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    add_powers<S, T, B, kKeep>(sum, logits, i, highest, kept);
  }
  if (i < count) {
    // exp(-infinity) adds nothing.
    Rest<S, lanes> rest;
    Rest<T, lanes> powers;
    Rest<S, lanes>::load(rest, logits, i, count - i, Stored<S>::lowest());
    add_powers<S, T, B, kKeep>(sum, rest.elements, 0, highest, powers.elements);
    if (kKeep) Rest<T, lanes>::store(powers, kept, i, count - i);
  }
  return Sum<B>::total(sum);
}

// Adds up w (highest - x), which is small where the logits are near each other.
template <class S, class T, int B>
ALWAYS_INLINE double spread_of(const void* logits, int64_t count, const void* weight, T highest) {
  constexpr int lanes = lanes_of<T, B>, parts = kStepBytes / B;
  Sum<B> sum;
  int64_t i = 0;
  for (; i + parts * lanes <= count; i += parts * lanes) {
    UNROLL for (int part = 0; part < parts; part++) {
      const int64_t at = i + part * lanes;
      const Vector<T, B> below = highest - Stored<S>::template load<B>(logits, at);
      Sum<B>::add(sum, part, weight ? below * Stored<T>::template load<B>(weight, at) : below);
    }
  }
  if (i < count) {
    T below[parts * lanes] = {};
    for (int64_t k = 0; i + k < count; k++) {
      below[k] = highest - Stored<S>::one(logits, i + k);
      if (weight) below[k] *= read<T>(weight, i + k);
    }
    UNROLL for (int part = 0; part < parts; part++) {
      Sum<B>::add(sum, part, Stored<T>::template load<B>(below, part * lanes));
    }
  }
  return Sum<B>::total(sum);
}

// Writes kept * scale - evenly * w, `evenly` being 0 unless kSmooth.
template <class T, class G, int B, bool kSmooth>
ALWAYS_INLINE void write_gradient(
    void* gradient, int64_t count, const void* kept, T scale, T evenly, const void* weight) {
  constexpr int lanes = lanes_of<T, B>;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    Vector<T, B> derivative = Stored<T>::template load<B>(kept, i) * scale;
    if (kSmooth && weight) {
      derivative -= evenly * Stored<T>::template load<B>(weight, i);
    } else if (kSmooth) {
      derivative -= evenly;
    }
    Stored<G>::template store<B>(gradient, i, derivative);
  }
  for (; i < count; i++) {
    T derivative = read<T>(kept, i) * scale;
    if (kSmooth) derivative -= weight ? evenly * read<T>(weight, i) : evenly;
    write_one<T, G>(gradient, i, derivative);
  }
}

ALWAYS_INLINE void write_factors(
    const SoftmaxRows& call, int64_t row, double lse, double scale, double tail) {
  write<double>(call.factors, row, lse);
  write<double>(call.factors, call.factor_step + row, scale);
  write<double>(call.factors, 2 * call.factor_step + row, tail);
}

ALWAYS_INLINE double coefficient_of(const SoftmaxRows& call, int64_t row) {
  return read<double>(call.coefficients, row * call.coefficient_step) / call.divisor;
}

// Numbers shared by all rows of a call.
struct Common {
  double share;    // of the target itself: 1 - e
  double even;     // of each class: e / C
  double weights;  // the sum of w; 0 without smoothing, where no weight but the target's counts
};

template <class T>
ALWAYS_INLINE Common common_of(const SoftmaxRows& call) {
  Common common = {1.0 - call.smoothing, call.smoothing / static_cast<double>(call.classes), 0.0};
  if (call.smoothing == 0.0) return common;
  if (!call.weight) common.weights = static_cast<double>(call.classes);
  for (int64_t i = 0; call.weight && i < call.classes; i++) {
    common.weights += read<T>(call.weight, i);
  }
  return common;
}

// The addresses of a row.
struct Place {
  const char* logits;
  char* gradient;  // or null
  void* kept;      // where powers are stored if there is a gradient
};

// Writes 0 for a row that is removed or ignored, whatever its logits are: exp(x - infinity) is 0 for
// any number.
template <class T, class G>
ALWAYS_INLINE void remove_row(const SoftmaxRows& call, int64_t row, const Place& place) {
  if (call.values) write<T>(call.values, row, 0);
  if (place.gradient) memset(place.gradient, 0, call.classes * sizeof(G));
  if (call.factors) write_factors(call, row, INFINITY, 0.0, 0.0);
}

// Computes a row that counts.
template <class S, class T, class G, int B>
ALWAYS_INLINE T compute_row(
    const SoftmaxRows& call, int64_t row, const Common& common, const Place& place,
    int64_t target) {
  const int64_t classes = call.classes;
  const bool smooth = call.smoothing != 0.0;
  const T highest = highest_of<S, T, B>(place.logits, classes);
  const double sum = place.gradient
                         ? powers_of<S, T, B, true>(place.logits, classes, highest, place.kept)
                         : powers_of<S, T, B, false>(place.logits, classes, highest, nullptr);
  const Exact log = logarithm_of(sum);
  const double on_target = call.weight ? common.share * read<T>(call.weight, target) : common.share;
  const Exact below = sum_of(highest, -static_cast<double>(Stored<S>::one(place.logits, target)));
  const Exact whole = sum_of(below.value, log.value);
  // With a smoothing of 1 nothing is left of the target itself, not even of an infinite loss.
  double value = 0.0;
  if (common.share != 0.0) {
    value = Exact::rounded({whole.value, whole.tail + below.tail + log.tail}) * on_target;
  }
  double scale = 0.0, coefficient = 0.0;
  if (smooth) {
    const double spread = spread_of<S, T, B>(place.logits, classes, call.weight, highest);
    value += (spread + log.value * common.weights) * common.even;
  }
  if (call.coefficients) {
    coefficient = coefficient_of(call, row);
    scale = coefficient * (on_target + common.even * common.weights);
  }
  if (call.factors) {
    const Exact lse = sum_of(highest, log.value);
    write_factors(call, row, lse.value, scale, lse.tail + log.tail);
  }
  if (!place.gradient) return static_cast<T>(value);

  const double power = read<T>(place.kept, target);
  const T each = static_cast<T>(scale / sum);
  const double evenly = coefficient * common.even;
  if (smooth) {
    write_gradient<T, G, B, true>(
        place.gradient, classes, place.kept, each, static_cast<T>(evenly), call.weight);
  } else {
    write_gradient<T, G, B, false>(place.gradient, classes, place.kept, each, 0, nullptr);
  }
  double derivative = scale * (power / sum) - coefficient * on_target;
  if (smooth) {
    // What is subtracted here and evenly at the other classes adds up to the scale.
    const double own = call.weight ? static_cast<double>(read<T>(call.weight, target)) : 1.0;
    derivative = scale * (power / sum - 1.0) + evenly * (common.weights - own);
  }
  write_one<T, G>(place.gradient, target, static_cast<T>(derivative));
  return static_cast<T>(value);
}

// The negative log-likelihood of a row, to which only the class of the target contributes.
template <class S, class T, class G>
ALWAYS_INLINE T compute_likelihood(
    const SoftmaxRows& call, int64_t row, const Place& place, int64_t target) {
  if (place.gradient) memset(place.gradient, 0, call.classes * sizeof(G));
  const double weight = call.weight ? static_cast<double>(read<T>(call.weight, target)) : 1.0;
  if (place.gradient) {
    const double coefficient = coefficient_of(call, row);
    write_one<T, G>(place.gradient, target, static_cast<T>(-coefficient * weight));
  }
  return static_cast<T>(-weight * Stored<S>::one(place.logits, target));
}

template <class S, class T, class G, int B>
ALWAYS_INLINE Result run_rows(SoftmaxRows& call, void* scratch) {
  const Common common = common_of<T>(call);
  Exact total = {0.0, 0.0};
  Place place = {static_cast<const char*>(call.logits), static_cast<char*>(call.gradient), scratch};
  for (int64_t row = 0; row < call.rows; row++) {
    if (!scratch) place.kept = place.gradient;
    const int64_t target = read<int64_t>(call.target, row);
    const bool removed = call.removed && read<uint8_t>(call.removed, row);
    if (removed || target == call.ignore_index) {
      remove_row<T, G>(call, row, place);
    } else {
      if (target < 0 || target >= call.classes) return kWrongClass;
      const T value = call.likelihood ? compute_likelihood<S, T, G>(call, row, place, target)
                                      : compute_row<S, T, G, B>(call, row, common, place, target);
      if (call.values) write<T>(call.values, row, value);
      const Exact next = sum_of(total.value, value);
      total = {next.value, total.tail + next.tail};
    }
    place.logits += call.classes * sizeof(S);
    if (place.gradient) place.gradient += call.classes * sizeof(G);
  }
  call.total = Exact::rounded(total);
  return kDone;
}

template <class S, class T, class G, int B>
ALWAYS_INLINE Result run(SoftmaxRows& call, Types<S, T, G>, Width<B>) {
  // Powers are stored in the gradient's memory, unless its elements are narrower.
  void* scratch = nullptr;
  if (call.gradient && sizeof(T) != sizeof(G) && !call.likelihood) {
    scratch = malloc(call.classes * sizeof(T));
    if (!scratch) return kNoMemory;
  }
  const Result result = run_rows<S, T, G, B>(call, scratch);
  free(scratch);
  return result;
}

}  // namespace
}  // namespace losswire

extern "C" __attribute__((visibility("default")))
int32_t losswire_softmax_rows(losswire::SoftmaxRows* call) {
  return losswire::run_here(*call);
}

// Cross entropy of rows of logits with class indices: values, gradients and factors.
//
// With lse = log(sum(exp(x))) of a row x of C classes, target t, class weights w, smoothing e:
//
//   value    = (1 - e) w_t (lse - x_t) + e / C sum_j w_j (lse - x_j)
//   gradient = c ((1 - e) w_t + e / C sum_j w_j) exp(x - lse) - c e / C w - c (1 - e) w_t at t
//
// where c is the gradient with respect to the value. What there is one of in a row is kept in
// double; nothing is formed that grows with x. Each row is read into the cache once and its
// gradient written once. No row depends on another one, nor on where it stands.
#include <math.h>
#include <stdlib.h>

#include "vectors.h"

namespace losswire {
namespace {

// The numbers of the wire's DataType.
enum Type : int32_t { kFloat16 = 7, kBfloat16 = 8, kFloat32 = 9, kFloat64 = 10 };

// One call. `native/library.py` has the same structure.
struct SoftmaxRows {
  int64_t rows;
  int64_t classes;
  const void* logits;         // (rows, classes) of logits_type
  const void* target;         // (rows) of int64: a class or ignore_index
  const void* weight;         // (classes) of the type computed in, or null
  const void* removed;        // (rows) of bytes: what is not 0 counts as ignored; or null
  const void* coefficients;   // double, one for each row or one for all; null: no gradient
  int64_t coefficient_step;   // from one row's to the next one's: 1 or 0
  void* gradient;             // (rows, classes) of gradient_type, or null
  void* values;               // (rows) of the type computed in, or null
  void* factors;              // 3 x (rows) of double, `factor_step` apart: lse, scale, lse_tail
  int64_t factor_step;
  int64_t ignore_index;
  double smoothing;
  int32_t logits_type;
  int32_t gradient_type;
  int32_t most_vector_bytes;  // the widest registers to use
  double total;               // found: the sum of the values
};

enum Result : int32_t { kDone = 0, kUnknownType = 1, kWrongClass = 2, kNoMemory = 3 };

// What a row of logits comes to.
template <class T>
struct Row {
  T highest;
  double sum;     // of exp(x - highest)
  double spread;  // of w (highest - x), if there is smoothing
};

// A sum of many numbers with what rounding took from it (Neumaier).
struct Total {
  double sum = 0.0, lost = 0.0;

  ALWAYS_INLINE void add(Total& total, double value) {
    double next = total.sum + value;
    bool larger = fabs(total.sum) >= fabs(value);
    total.lost += larger ? (total.sum - next) + value : (value - next) + total.sum;
    total.sum = next;
  }

  // Where the sum is infinite, what was lost is not a number.
  ALWAYS_INLINE double value(const Total& total) {
    return isfinite(total.sum) ? total.sum + total.lost : total.sum;
  }
};

template <class S, class T>
ALWAYS_INLINE T highest_of(const void* logits, int64_t count) {
  typedef typename Vector<T>::type V;
  constexpr int lanes = Vector<T>::lanes;
  const V lowest = splat<V>(static_cast<T>(-INFINITY));
  V best[4] = {lowest, lowest, lowest, lowest};
  int64_t i = 0;
  for (; i + 4 * lanes <= count; i += 4 * lanes) {
    for (int k = 0; k < 4; k++) {
      V x = Stored<S>::load(logits, i + k * lanes);
      best[k] = x > best[k] ? x : best[k];
    }
  }
  for (; i < count; i += lanes) {
    V x = lowest;
    if (i + lanes <= count) {
      x = Stored<S>::load(logits, i);
    } else {
      x = load_some<S, T>(logits, i, count - i, read<S>(logits, i));
    }
    best[0] = x > best[0] ? x : best[0];
  }
  for (int k = 1; k < 4; k++) best[0] = best[k] > best[0] ? best[k] : best[0];
  T found = best[0][0];
  for (int k = 1; k < lanes; k++) found = best[0][k] > found ? best[0][k] : found;
  return found;
}

// Adds exp(x - highest) up, and keeps each where there is a place.
template <class S, class T, bool kKeep, bool kSmooth>
ALWAYS_INLINE Row<T> powers_of(
    const void* logits, int64_t count, const void* weight, T highest, void* kept) {
  typedef typename Vector<T>::type V;
  constexpr int lanes = Vector<T>::lanes;
  Sum sum, spread;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    V x = Stored<S>::load(logits, i);
    V power = exp_below_0(x - highest);
    if (kKeep) Stored<T>::store(kept, i, power);
    Sum::take(sum, power);
    if (kSmooth) {
      V below = highest - x;
      Sum::take(spread, weight ? below * Stored<T>::load(weight, i) : below);
    }
  }
  if (i < count) {
    // What stands for the rest has to add nothing.
    V x = load_some<S, T>(logits, i, count - i, read<S>(logits, i));
    V power = exp_below_0(x - highest);
    T powers[lanes], below[lanes];
    Stored<T>::store(powers, 0, power);
    Stored<T>::store(below, 0, highest - x);
    for (int64_t k = 0; k < lanes; k++) {
      bool inside = i + k < count;
      if (!inside) powers[k] = 0;
      if (!inside) below[k] = 0;
      if (kSmooth && inside && weight) below[k] *= read<T>(weight, i + k);
      if (kKeep && inside) write<T>(kept, i + k, powers[k]);
    }
    Sum::take(sum, Stored<T>::load(powers, 0));
    if (kSmooth) Sum::take(spread, Stored<T>::load(below, 0));
  }
  return {highest, Sum::total(sum), Sum::total(spread)};
}

// Writes kept * scale - evenly * w.
template <class T, class G, bool kSmooth>
ALWAYS_INLINE void write_gradient(
    void* gradient, int64_t count, const void* kept, T scale, T evenly, const void* weight) {
  typedef typename Vector<T>::type V;
  constexpr int lanes = Vector<T>::lanes;
  for (int64_t i = 0; i < count; i += lanes) {
    int64_t left = count - i;
    bool whole = left >= lanes;
    V slope = (whole ? Stored<T>::load(kept, i) : load_some<T, T>(kept, i, left, 0)) * scale;
    if (kSmooth && weight) {
      slope -= evenly * (whole ? Stored<T>::load(weight, i) : load_some<T, T>(weight, i, left, 0));
    } else if (kSmooth) {
      slope -= evenly;
    }
    if (whole) {
      Stored<G>::store(gradient, i, slope);
    } else {
      store_some<G, T>(gradient, i, left, slope);
    }
  }
}

template <class T, class G>
ALWAYS_INLINE void write_one(void* gradient, int64_t i, double value) {
  store_some<G, T>(gradient, i, 1, splat<typename Vector<T>::type>(static_cast<T>(value)));
}

// Where a removed row has its factors: exp(x - inf) is 0 for whatever number x is.
ALWAYS_INLINE void write_factors(const SoftmaxRows& call, int64_t row, double lse, double scale,
                                 double tail) {
  write<double>(call.factors, row, lse);
  write<double>(call.factors, call.factor_step + row, scale);
  write<double>(call.factors, 2 * call.factor_step + row, tail);
}

// One addition without what rounding takes from it (Knuth), and the rest of the logarithm, which
// is more exact than what can be told of its rest where it is small.
ALWAYS_INLINE void write_lse(const SoftmaxRows& call, int64_t row, double highest, double sum,
                             double log_sum, double scale) {
  double rest = log_sum > 1.0 ? exp(-log_sum) * sum - 1.0 : 0.0;
  double lse = highest + log_sum;
  double second = lse - highest;
  double tail = (highest - (lse - second)) + (log_sum - second) + rest;
  write_factors(call, row, lse, scale, tail);
}

template <class S, class T, class G, bool kSmooth>
ALWAYS_INLINE Result run_rows(SoftmaxRows& call, void* scratch) {
  const int64_t classes = call.classes;
  const double share = 1.0 - call.smoothing, even = call.smoothing / static_cast<double>(classes);
  double weights = static_cast<double>(classes);
  if (call.weight) {
    weights = 0.0;
    for (int64_t i = 0; i < classes; i++) weights += read<T>(call.weight, i);
  }
  Total total;
  for (int64_t row = 0; row < call.rows; row++) {
    const char* logits = static_cast<const char*>(call.logits) + row * classes * sizeof(S);
    char* gradient = static_cast<char*>(call.gradient);
    if (gradient) gradient += row * classes * sizeof(G);
    const int64_t target = read<int64_t>(call.target, row);
    if (call.removed && read<uint8_t>(call.removed, row)) {
      // 0 whatever the logits are.
      if (call.values) write<T>(call.values, row, 0);
      if (gradient) memset(gradient, 0, classes * sizeof(G));
      if (call.factors) write_factors(call, row, INFINITY, 0.0, 0.0);
      continue;
    }
    if (target == call.ignore_index) {
      // As in torch: the value is 0, the gradient 0 times a softmax that may not be a number.
      if (call.values) write<T>(call.values, row, 0);
      if (!call.coefficients) continue;
      const T highest = highest_of<S, T>(logits, classes);
      const Row<T> found =
          powers_of<S, T, false, false>(logits, classes, nullptr, highest, nullptr);
      const T nothing = static_cast<T>(0.0 * found.sum);
      if (call.factors) write_lse(call, row, highest, found.sum, log(found.sum), 0.0);
      if (!gradient) continue;
      if (nothing == 0) {
        memset(gradient, 0, classes * sizeof(G));
      } else {
        for (int64_t i = 0; i < classes; i++) write_one<T, G>(gradient, i, nothing);
      }
      continue;
    }
    if (target < 0 || target >= classes) return kWrongClass;

    const T highest = highest_of<S, T>(logits, classes);
    void* kept = sizeof(T) == sizeof(G) ? gradient : scratch;
    const Row<T> found =
        gradient ? powers_of<S, T, true, kSmooth>(logits, classes, call.weight, highest, kept)
                 : powers_of<S, T, false, kSmooth>(logits, classes, call.weight, highest, nullptr);
    const double log_sum = log(found.sum);
    const double on_target = call.weight ? share * read<T>(call.weight, target) : share;
    const double chosen = Stored<S>::one(logits, target);
    double value = (static_cast<double>(highest) - chosen + log_sum) * on_target;
    if (kSmooth) value += (found.spread + log_sum * weights) * even;
    const T rounded = static_cast<T>(value);
    if (call.values) write<T>(call.values, row, rounded);
    Total::add(total, rounded);
    if (!call.coefficients) continue;

    const double coefficient = read<double>(call.coefficients, row * call.coefficient_step);
    const double scale = coefficient * (on_target + even * weights);
    if (call.factors) write_lse(call, row, highest, found.sum, log_sum, scale);
    if (!gradient) continue;
    const double power = read<T>(kept, target);
    const double evenly = coefficient * even;
    write_gradient<T, G, kSmooth>(gradient, classes, kept, static_cast<T>(scale / found.sum),
                                  static_cast<T>(evenly), call.weight);
    double slope = scale * (power / found.sum) - coefficient * on_target;
    if (kSmooth) slope -= evenly * (call.weight ? read<T>(call.weight, target) : T(1));
    write_one<T, G>(gradient, target, slope);
  }
  call.total = Total::value(total);
  return kDone;
}

template <class S, class T, class G>
ALWAYS_INLINE Result run(SoftmaxRows& call) {
  // Powers are kept where the gradient goes, unless its numbers are shorter.
  void* scratch = nullptr;
  if (call.gradient && sizeof(T) != sizeof(G)) {
    scratch = malloc(call.classes * sizeof(T));
    if (!scratch) return kNoMemory;
  }
  Result result = call.smoothing != 0.0 ? run_rows<S, T, G, true>(call, scratch)
                                        : run_rows<S, T, G, false>(call, scratch);
  free(scratch);
  return result;
}

constexpr int32_t both(Type logits, Type gradient) { return logits * 16 + gradient; }

ALWAYS_INLINE int32_t dispatch(SoftmaxRows& call) {
  switch (call.logits_type * 16 + call.gradient_type) {
    case both(kFloat32, kFloat32): return run<float, float, float>(call);
    case both(kFloat64, kFloat64): return run<double, double, double>(call);
    case both(kFloat16, kFloat16): return run<Float16, float, Float16>(call);
    case both(kFloat16, kFloat32): return run<Float16, float, float>(call);
    case both(kBfloat16, kBfloat16): return run<Bfloat16, float, Bfloat16>(call);
    case both(kBfloat16, kFloat32): return run<Bfloat16, float, float>(call);
    default: return kUnknownType;
  }
}

// The same code for registers of other widths.
#if defined(__x86_64__)
__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,f16c")))
int32_t run_avx512(SoftmaxRows& call) { return dispatch(call); }

__attribute__((target("avx2,f16c")))
int32_t run_avx2(SoftmaxRows& call) { return dispatch(call); }
#endif

int32_t run_anywhere(SoftmaxRows& call) { return dispatch(call); }

int32_t run_here(SoftmaxRows& call) {
#if defined(__x86_64__)
  const int32_t most = call.most_vector_bytes;
  if (most >= 64 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return run_avx512(call);
  }
  if (most >= 32 && __builtin_cpu_supports("avx2")) return run_avx2(call);
#endif
  return run_anywhere(call);
}

}  // namespace
}  // namespace losswire

extern "C" __attribute__((visibility("default")))
int32_t losswire_softmax_rows(losswire::SoftmaxRows* call) {
  return losswire::run_here(*call);
}

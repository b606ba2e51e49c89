// Losses of single elements, such as mse_loss: values and gradients.
//
// An element's value is w f(x, y), its gradient c w f'(x, y), where c is the gradient with respect
// to the value: a coefficient over the divisor that all have. Every element is read once and its gradient written once. No element depends on
// another or on its position: the remainder at the end is computed as a whole step, too.
#include "calls.h"
#include "element_factors.h"
#include "element_losses.h"
#include "exact.h"

namespace losswire {
namespace {

// `native/elementwise.py` has the same numbers.
enum Loss : int32_t {
  kMse = 0,
  kL1 = 1,
  kSmoothL1 = 2,
  kHuber = 3,
  kBceWithLogits = 4,
  kBceWithPosWeight = 5,
  kBce = 6,
  kKlDiv = 7,
  kKlDivLog = 8,
  kLossCount
};

// One call. `native/binding.py` has the same structure.
struct Elements {
  int64_t count;
  int64_t line;                // the number of elements after which weights repeat
  const void* input;           // (count) of read_type
  const void* target;          // (count) of read_type
  const void* weight;          // (count), or (line) if it repeats, of read_type; or null
  const void* pos_weight;      // as weight
  const void* removed;         // (count) of bytes: not 0 gives 0; or null
  const void* coefficients;    // double, one for each element or one for all; null: no gradient
  int64_t coefficient_step;    // from one element to the next: 1 or 0
  double divisor;              // of all coefficients
  void* input_gradient;        // (count) of gradient_type, or null
  void* target_gradient;       // as input_gradient
  void* values;                // (count) of the type computed in, or null
  double option;               // beta or delta
  int32_t loss;
  int32_t weight_repeats;
  int32_t pos_weight_repeats;
  int32_t read_type;
  int32_t gradient_type;
  int32_t most_vector_bytes;   // the widest registers to use
  double total;                // result: the sum of the values
};

// Sums of every eighth value, each with the part that rounding removed.
struct Sums {
  double values[8];
  double tails[8];
};

template <class V>
ALWAYS_INLINE void add_exactly(V& sum, V& tail, V number) {
  const V whole = sum + number;
  const V second = whole - sum;
  tail += (sum - (whole - second)) + (number - second);
  sum = whole;
}

template <int B>
ALWAYS_INLINE void add_sum(Sums& sums, const Sum<B>& sum) {
  constexpr int lanes = lanes_of<double, B>;
  typedef Vector<double, B> V;
  UNROLL for (int part = 0; part < Sum<B>::kParts; part++) {
    V whole = load_bytes<V>(sums.values + part * lanes, 0);
    V tail = load_bytes<V>(sums.tails + part * lanes, 0);
    add_exactly(whole, tail, sum.parts[part]);
    store_bytes(sums.values + part * lanes, 0, whole);
    store_bytes(sums.tails + part * lanes, 0, tail);
  }
}

ALWAYS_INLINE double total_of(const Sums& sums) {
  Exact total = {sums.values[0], sums.tails[0]};
  for (int k = 1; k < 8; k++) {
    const Exact next = sum_of(total.value, sums.values[k]);
    total = {next.value, total.tail + next.tail + sums.tails[k]};
  }
  return Exact::rounded(total);
}

// Computes one register of elements: returns their values and writes what has a pointer.
template <class F, class T, int B, bool kPlain>
ALWAYS_INLINE Vector<T, B> compute_register(const Piece<T>& piece, int64_t at) {
  typedef Vector<T, B> V;
  typedef Stored<T> Memory;
  const V pos_weight = F::kHasPosWeight ? Memory::template load<B>(piece.pos_weight, at) : V{};
  const Given<V> given = {Memory::template load<B>(piece.input, at),
                          Memory::template load<B>(piece.target, at), pos_weight,
                          splat<V>(piece.option)};
  const Found<V> found = F::template of<T, B>(given);
  const V zero = V{};
  V value = found.value;
  const V weight = piece.weight ? Memory::template load<B>(piece.weight, at) : V{};
  if (piece.weight) value *= weight;
  const V removed = piece.removed ? Memory::template load<B>(piece.removed, at) : zero;
  if (piece.removed) value = removed == zero ? value : zero;
  if (piece.values) Memory::template store<B>(piece.values, at, value);
  if (!piece.input_gradient && !piece.target_gradient) return value;
  V derivative = times_factors<F, B, kPlain>(piece, at, found.derivative);
  if (F::kDivides) derivative /= found.divisor;
  V opposite = -derivative;
  if (piece.removed) {
    derivative = removed == zero ? derivative : zero;
    opposite = removed == zero ? opposite : zero;
  }
  if (piece.input_gradient) Memory::template store<B>(piece.input_gradient, at, derivative);
  if (piece.target_gradient) Memory::template store<B>(piece.target_gradient, at, opposite);
  return value;
}

template <class F, class T, int B, bool kPlain>
ALWAYS_INLINE void compute_all(const Piece<T>& piece, Sums& sums) {
  constexpr int lanes = lanes_of<T, B>, step = lanes_of<T, kStepBytes>;
  // The sum of a few floats is exact in double.
  constexpr int64_t together = sizeof(T) == sizeof(double) ? step : 16 * step;
  int64_t i = 0;
  while (i < piece.count) {
    const int64_t stop = piece.count - i < together ? piece.count : i + together;
    Sum<B> sum;
    for (; i < stop; i += step) {
      UNROLL for (int part = 0; part < kStepBytes / B; part++) {
        Sum<B>::add(sum, part, compute_register<F, T, B, kPlain>(piece, i + part * lanes));
      }
    }
    add_sum<B>(sums, sum);
  }
}

template <class F, class T, int B>
ALWAYS_INLINE void compute_elements(const Piece<T>& piece, Sums& sums) {
  if (is_plain_product<F>(piece)) return compute_all<F, T, B, true>(piece, sums);
  compute_all<F, T, B, false>(piece, sums);
}

template <class T, int B>
ALWAYS_INLINE void compute_loss(int32_t loss, const Piece<T>& piece, Sums& sums) {
  switch (loss) {
    case kMse: return compute_elements<Mse, T, B>(piece, sums);
    case kL1: return compute_elements<L1, T, B>(piece, sums);
    case kSmoothL1: return compute_elements<SmoothL1, T, B>(piece, sums);
    case kHuber: return compute_elements<Huber, T, B>(piece, sums);
    case kBceWithLogits: return compute_elements<BceWithLogits<false>, T, B>(piece, sums);
    case kBceWithPosWeight: return compute_elements<BceWithLogits<true>, T, B>(piece, sums);
    case kBce: return compute_elements<Bce, T, B>(piece, sums);
    case kKlDiv: return compute_elements<KlDiv, T, B>(piece, sums);
    case kKlDivLog: return compute_elements<KlDivLog, T, B>(piece, sums);
  }
}

// Separate from the conversions, so that all types read and written share one instance.
#if defined(__x86_64__)
template <class T>
AVX512 void compute_piece(int32_t loss, const Piece<T>& piece, Sums& sums, Width<64>) {
  compute_loss<T, 64>(loss, piece, sums);
}

template <class T>
AVX2 void compute_piece(int32_t loss, const Piece<T>& piece, Sums& sums, Width<32>) {
  compute_loss<T, 32>(loss, piece, sums);
}
#endif

template <class T>
void compute_piece(int32_t loss, const Piece<T>& piece, Sums& sums, Width<16>) {
  compute_loss<T, 16>(loss, piece, sums);
}

// The number of elements that are converted, or padded to whole steps, at a time.
// In float, the buffers take 18 KiB and stay in the level-1 cache.
constexpr int kBlock = 512;

template <class T>
struct Buffers {
  T input[kBlock], target[kBlock], weight[kBlock], pos_weight[kBlock], coefficients[kBlock];
  T removed[kBlock], input_gradient[kBlock], target_gradient[kBlock], values[kBlock];
};

ALWAYS_INLINE double coefficient_at(const Elements& call, int64_t i) {
  return read<double>(call.coefficients, i) / call.divisor;
}

// Fills a buffer with converted elements, and with 0 up to a whole step.
template <class S, class T, int B>
ALWAYS_INLINE void fill(T* buffer, const void* base, int64_t at, int64_t count, int64_t whole) {
  constexpr int lanes = lanes_of<T, B>;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    Stored<T>::template store<B>(buffer, i, Stored<S>::template load<B>(base, at + i));
  }
  for (; i < count; i++) buffer[i] = Stored<S>::one(base, at + i);
  for (; i < whole; i++) buffer[i] = T(0);
}

// Writes the elements of a buffer to their destination, converted.
template <class T, class G, int B>
ALWAYS_INLINE void empty(const T* buffer, void* base, int64_t at, int64_t count) {
  constexpr int lanes = lanes_of<T, B>;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    Stored<G>::template store<B>(base, at + i, Stored<T>::template load<B>(buffer, i));
  }
  if (i == count) return;
  Rest<G, lanes> rest;
  Stored<G>::template store<B>(rest.elements, 0, Stored<T>::template load<B>(buffer, i));
  Rest<G, lanes>::store(rest, base, at + i, count - i);
}

// Computes at most a block of elements through buffers. `phase` is the offset into weights that
// repeat.
template <class S, class T, class G, int B>
ALWAYS_INLINE void compute_block(const Elements& call, int64_t at, int64_t phase, int64_t count,
                              Piece<T> piece, Buffers<T>& buffers, Sums& sums) {
  constexpr int step = lanes_of<T, kStepBytes>;
  const int64_t whole = (count + step - 1) / step * step;
  piece.count = whole;
  fill<S, T, B>(buffers.input, call.input, at, count, whole);
  fill<S, T, B>(buffers.target, call.target, at, count, whole);
  piece.input = buffers.input;
  piece.target = buffers.target;
  if (call.weight) {
    fill<S, T, B>(buffers.weight, call.weight, call.weight_repeats ? phase : at, count, whole);
    piece.weight = buffers.weight;
  }
  if (call.pos_weight) {
    const int64_t from = call.pos_weight_repeats ? phase : at;
    fill<S, T, B>(buffers.pos_weight, call.pos_weight, from, count, whole);
    piece.pos_weight = buffers.pos_weight;
  }
  if (call.removed || count < whole) {
    for (int64_t i = 0; i < whole; i++) {
      buffers.removed[i] = i >= count || (call.removed && read<uint8_t>(call.removed, at + i));
    }
    piece.removed = buffers.removed;
  }
  if (call.coefficients && call.coefficient_step) {
    for (int64_t i = 0; i < whole; i++) {
      const bool there = i < count;
      buffers.coefficients[i] = there ? static_cast<T>(coefficient_at(call, at + i)) : 0;
    }
    piece.coefficients = buffers.coefficients;
  }
  if (call.input_gradient) piece.input_gradient = buffers.input_gradient;
  if (call.target_gradient) piece.target_gradient = buffers.target_gradient;
  if (call.values) piece.values = buffers.values;
  compute_piece(call.loss, piece, sums, Width<B>{});
  if (call.input_gradient) {
    empty<T, G, B>(buffers.input_gradient, call.input_gradient, at, count);
  }
  if (call.target_gradient) {
    empty<T, G, B>(buffers.target_gradient, call.target_gradient, at, count);
  }
  if (call.values) empty<T, T, B>(buffers.values, call.values, at, count);
}

template <class T>
ALWAYS_INLINE const void* moved(const void* base, int64_t at) {
  return base ? static_cast<const char*>(base) + at * sizeof(T) : nullptr;
}

template <class T>
ALWAYS_INLINE void* moved(void* base, int64_t at) {
  return base ? static_cast<char*>(base) + at * sizeof(T) : nullptr;
}

// Computes whole steps of elements without copying them.
template <class T, int B>
ALWAYS_INLINE void compute_in_place(const Elements& call, int64_t at, int64_t phase, int64_t count,
                              Piece<T> piece, Sums& sums) {
  piece.count = count;
  piece.input = moved<T>(call.input, at);
  piece.target = moved<T>(call.target, at);
  piece.weight = moved<T>(call.weight, call.weight_repeats ? phase : at);
  piece.pos_weight = moved<T>(call.pos_weight, call.pos_weight_repeats ? phase : at);
  piece.input_gradient = moved<T>(call.input_gradient, at);
  piece.target_gradient = moved<T>(call.target_gradient, at);
  piece.values = moved<T>(call.values, at);
  compute_piece(call.loss, piece, sums, Width<B>{});
}

// Computes the elements of a line that begins at `start`.
template <class S, class T, class G, int B>
ALWAYS_INLINE void compute_line(const Elements& call, int64_t start, int64_t count,
                             const Piece<T>& piece, Buffers<T>& buffers, Sums& sums) {
  constexpr int step = lanes_of<T, kStepBytes>;
  int64_t done = 0;
  if (sizeof(S) == sizeof(T) && sizeof(G) == sizeof(T) && !call.removed && !call.coefficient_step) {
    done = count / step * step;
    if (done) compute_in_place<T, B>(call, start, 0, done, piece, sums);
  }
  for (int64_t next; done < count; done = next) {
    next = count - done < kBlock ? count : done + kBlock;
    compute_block<S, T, G, B>(call, start + done, done, next - done, piece, buffers, sums);
  }
}

// Writes several copies of a repeating weight, one after the other.
template <class S>
ALWAYS_INLINE const void* repeat(S* place, const void* weight, int64_t line, int64_t times) {
  for (int64_t i = 0; i < times; i++) memcpy(place + i * line, weight, line * sizeof(S));
  return place;
}

template <class S, class T, class G, int B>
ALWAYS_INLINE int32_t run(Elements& given, Types<S, T, G>, Width<B>) {
  if (given.loss < 0 || given.loss >= kLossCount) return kUnknownLoss;
  Elements call = given;
  Buffers<T> buffers;
  S weights[kBlock], pos_weights[kBlock];
  // The overhead of a short line exceeds its arithmetic.
  if ((call.weight_repeats || call.pos_weight_repeats) && 2 * call.line <= kBlock) {
    const int64_t times = kBlock / call.line;
    if (call.weight_repeats) call.weight = repeat<S>(weights, call.weight, call.line, times);
    if (call.pos_weight_repeats) {
      call.pos_weight = repeat<S>(pos_weights, call.pos_weight, call.line, times);
    }
    call.line *= times;
  }
  if (!call.coefficients) call.coefficient_step = 0;
  Sums sums = {};
  Piece<T> piece = {};
  piece.option = static_cast<T>(call.option);
  piece.bound = call.option;
  piece.coefficient = 1.0;
  piece.divisor = 1.0;
  if (call.coefficients && !call.coefficient_step) {
    // A quotient by a power of 2 is exact.
    int exponent;
    const bool exact = frexp(call.divisor, &exponent) == 0.5;
    piece.coefficient = read<double>(call.coefficients, 0) / (exact ? call.divisor : 1.0);
    if (!exact) piece.divisor = call.divisor;
  }
  for (int64_t start = 0; start < call.count; start += call.line) {
    const int64_t left = call.count - start;
    const int64_t count = left < call.line ? left : call.line;
    compute_line<S, T, G, B>(call, start, count, piece, buffers, sums);
  }
  given.total = total_of(sums);
  return kDone;
}

}  // namespace
}  // namespace losswire

extern "C" __attribute__((visibility("default")))
int32_t losswire_elements(losswire::Elements* call) { return losswire::run_here(*call); }

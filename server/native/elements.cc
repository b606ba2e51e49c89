// Losses of single elements, such as mse_loss: values and gradients.
//
// An element's value is w f(x, y), its gradient c w f'(x, y), where c is the gradient with respect
// to the value. Every element is read once and its gradient written once. None depends on another
// one, nor on where it stands: what is left at the end is computed as a whole step, too.
#include "calls.h"
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
  kBceWithPositive = 5,
  kBce = 6,
  kKlDiv = 7,
  kKlDivLog = 8
};

// One call. `native/binding.py` has the same structure.
struct Elements {
  int64_t count;
  int64_t line;                // after so many elements, weights that repeat begin again
  const void* input;           // (count) of read_type
  const void* target;          // (count) of read_type
  const void* weight;          // (count), or (line) if it repeats, of read_type; or null
  const void* positive;        // as weight: pos_weight
  const void* removed;         // (count) of bytes: what is not 0 gives 0; or null
  const void* coefficients;    // double, one for each element or one for all; null: no gradient
  int64_t coefficient_step;    // from one element's to the next one's: 1 or 0
  void* input_gradient;        // (count) of gradient_type, or null
  void* target_gradient;       // as input_gradient
  void* values;                // (count) of the type computed in, or null
  double option;               // beta or delta
  int32_t loss;
  int32_t weight_repeats;
  int32_t positive_repeats;
  int32_t read_type;
  int32_t gradient_type;
  int32_t most_vector_bytes;   // the widest registers to use
  double total;                // found: the sum of the values
};

// Sums of every eighth value, with what rounding took from them.
struct Totals {
  double sums[8];
  double tails[8];
};

// Some elements of the type computed in, whole steps of them.
template <class T>
struct Piece {
  int64_t count;
  const void* input;
  const void* target;
  const void* weight;        // or null
  const void* positive;      // or null
  const void* removed;       // of T: what is not 0 gives 0; or null
  const void* coefficients;  // of T; null: `coefficient` is all of them
  void* input_gradient;      // or null
  void* target_gradient;     // or null
  void* values;              // or null
  T coefficient;
  T option;
};

template <class V>
ALWAYS_INLINE void add_exactly(V& sum, V& tail, V number) {
  const V whole = sum + number;
  const V second = whole - sum;
  tail += (sum - (whole - second)) + (number - second);
  sum = whole;
}

template <int B>
ALWAYS_INLINE void add_sum(Totals& totals, const Sum<B>& sum) {
  constexpr int lanes = lanes_of<double, B>;
  typedef Vector<double, B> V;
  UNROLL for (int part = 0; part < Sum<B>::kParts; part++) {
    V whole = load_bytes<V>(totals.sums + part * lanes, 0);
    V tail = load_bytes<V>(totals.tails + part * lanes, 0);
    add_exactly(whole, tail, sum.parts[part]);
    store_bytes(totals.sums + part * lanes, 0, whole);
    store_bytes(totals.tails + part * lanes, 0, tail);
  }
}

ALWAYS_INLINE double total_of(const Totals& totals) {
  Exact total = {totals.sums[0], totals.tails[0]};
  for (int k = 1; k < 8; k++) {
    const Exact next = sum_of(total.value, totals.sums[k]);
    total = {next.value, total.tail + next.tail + totals.tails[k]};
  }
  return Exact::rounded(total);
}

// One register of elements: gives their values and writes what there is a place for.
template <class F, class T, int B>
ALWAYS_INLINE Vector<T, B> take_register(const Piece<T>& piece, int64_t at) {
  typedef Vector<T, B> V;
  typedef Stored<T> Memory;
  const V positive = F::kPositive ? Memory::template load<B>(piece.positive, at) : V{};
  const Given<V> given = {Memory::template load<B>(piece.input, at),
                          Memory::template load<B>(piece.target, at), positive,
                          splat<V>(piece.option)};
  const Found<V> found = F::template of<T, B>(given);
  const V none = V{};
  V value = found.value;
  const V weight = piece.weight ? Memory::template load<B>(piece.weight, at) : V{};
  if (piece.weight) value *= weight;
  const V removed = piece.removed ? Memory::template load<B>(piece.removed, at) : none;
  if (piece.removed) value = removed == none ? value : none;
  if (piece.values) Memory::template store<B>(piece.values, at, value);
  if (!piece.input_gradient && !piece.target_gradient) return value;
  V coefficient = piece.coefficients ? Memory::template load<B>(piece.coefficients, at)
                                     : splat<V>(piece.coefficient);
  if (piece.weight) coefficient *= weight;
  V slope = found.slope * coefficient, opposite = -slope;
  if (piece.removed) {
    slope = removed == none ? slope : none;
    opposite = removed == none ? opposite : none;
  }
  if (piece.input_gradient) Memory::template store<B>(piece.input_gradient, at, slope);
  if (piece.target_gradient) Memory::template store<B>(piece.target_gradient, at, opposite);
  return value;
}

template <class F, class T, int B>
ALWAYS_INLINE void take_elements(const Piece<T>& piece, Totals& totals) {
  constexpr int lanes = lanes_of<T, B>, step = lanes_of<T, kStepBytes>;
  // Few numbers of float lose nothing in double.
  constexpr int64_t together = sizeof(T) == sizeof(double) ? step : 16 * step;
  int64_t i = 0;
  while (i < piece.count) {
    const int64_t stop = piece.count - i < together ? piece.count : i + together;
    Sum<B> sum;
    for (; i < stop; i += step) {
      UNROLL for (int part = 0; part < kStepBytes / B; part++) {
        Sum<B>::take(sum, part, take_register<F, T, B>(piece, i + part * lanes));
      }
    }
    add_sum<B>(totals, sum);
  }
}

template <class T, int B>
ALWAYS_INLINE void take_loss(int32_t loss, const Piece<T>& piece, Totals& totals) {
  switch (loss) {
    case kMse: return take_elements<Mse, T, B>(piece, totals);
    case kL1: return take_elements<L1, T, B>(piece, totals);
    case kSmoothL1: return take_elements<SmoothL1, T, B>(piece, totals);
    case kHuber: return take_elements<Huber, T, B>(piece, totals);
    case kBceWithLogits: return take_elements<BceWithLogits<false>, T, B>(piece, totals);
    case kBceWithPositive: return take_elements<BceWithLogits<true>, T, B>(piece, totals);
    case kBce: return take_elements<Bce, T, B>(piece, totals);
    case kKlDiv: return take_elements<KlDiv, T, B>(piece, totals);
    case kKlDivLog: return take_elements<KlDivLog, T, B>(piece, totals);
  }
}

// Apart from what converts, so that there is one of each for all types that are read and written.
#if defined(__x86_64__)
template <class T>
AVX512 void take(int32_t loss, const Piece<T>& piece, Totals& totals, Width<64>) {
  take_loss<T, 64>(loss, piece, totals);
}

template <class T>
AVX2 void take(int32_t loss, const Piece<T>& piece, Totals& totals, Width<32>) {
  take_loss<T, 32>(loss, piece, totals);
}
#endif

template <class T>
void take(int32_t loss, const Piece<T>& piece, Totals& totals, Width<16>) {
  take_loss<T, 16>(loss, piece, totals);
}

// So many elements are converted, or made whole steps, at a time.
constexpr int kBlock = 512;

template <class T>
struct Buffers {
  T input[kBlock], target[kBlock], weight[kBlock], positive[kBlock], coefficients[kBlock];
  T removed[kBlock], input_gradient[kBlock], target_gradient[kBlock], values[kBlock];
};

// Fills a buffer with elements of another type, and 0 up to a whole step.
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

// Writes elements of a buffer where they go.
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

// Some elements, at most a block, by way of buffers. `phase` is where weights that repeat stand.
template <class S, class T, class G, int B>
ALWAYS_INLINE void take_block(const Elements& call, int64_t at, int64_t phase, int64_t count,
                              Piece<T> piece, Buffers<T>& buffers, Totals& totals) {
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
  if (call.positive) {
    const int64_t from = call.positive_repeats ? phase : at;
    fill<S, T, B>(buffers.positive, call.positive, from, count, whole);
    piece.positive = buffers.positive;
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
      buffers.coefficients[i] = there ? static_cast<T>(read<double>(call.coefficients, at + i)) : 0;
    }
    piece.coefficients = buffers.coefficients;
  }
  if (call.input_gradient) piece.input_gradient = buffers.input_gradient;
  if (call.target_gradient) piece.target_gradient = buffers.target_gradient;
  if (call.values) piece.values = buffers.values;
  take(call.loss, piece, totals, Width<B>{});
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

// Whole steps of elements where they lie.
template <class T, int B>
ALWAYS_INLINE void take_there(const Elements& call, int64_t at, int64_t phase, int64_t count,
                              Piece<T> piece, Totals& totals) {
  piece.count = count;
  piece.input = moved<T>(call.input, at);
  piece.target = moved<T>(call.target, at);
  piece.weight = moved<T>(call.weight, call.weight_repeats ? phase : at);
  piece.positive = moved<T>(call.positive, call.positive_repeats ? phase : at);
  piece.input_gradient = moved<T>(call.input_gradient, at);
  piece.target_gradient = moved<T>(call.target_gradient, at);
  piece.values = moved<T>(call.values, at);
  take(call.loss, piece, totals, Width<B>{});
}

// The elements of a line, which begins at `start`.
template <class S, class T, class G, int B>
ALWAYS_INLINE void take_line(const Elements& call, int64_t start, int64_t count,
                             const Piece<T>& piece, Buffers<T>& buffers, Totals& totals) {
  constexpr int step = lanes_of<T, kStepBytes>;
  int64_t done = 0;
  if (sizeof(S) == sizeof(T) && sizeof(G) == sizeof(T) && !call.removed && !call.coefficient_step) {
    done = count / step * step;
    if (done) take_there<T, B>(call, start, 0, done, piece, totals);
  }
  for (int64_t next; done < count; done = next) {
    next = count - done < kBlock ? count : done + kBlock;
    take_block<S, T, G, B>(call, start + done, done, next - done, piece, buffers, totals);
  }
}

// Writes a weight that repeats several times in a row.
template <class S>
ALWAYS_INLINE const void* repeat(S* place, const void* weight, int64_t line, int64_t times) {
  for (int64_t i = 0; i < times; i++) memcpy(place + i * line, weight, line * sizeof(S));
  return place;
}

template <class S, class T, class G, int B>
ALWAYS_INLINE int32_t run(Elements& given, Types<S, T, G>, Width<B>) {
  if (given.loss < kMse || given.loss > kKlDivLog) return kUnknownLoss;
  Elements call = given;
  Buffers<T> buffers;
  S weights[kBlock], positives[kBlock];
  // Lines that are short take longer than what they are made of.
  if ((call.weight_repeats || call.positive_repeats) && 2 * call.line <= kBlock) {
    const int64_t times = kBlock / call.line;
    if (call.weight_repeats) call.weight = repeat<S>(weights, call.weight, call.line, times);
    if (call.positive_repeats) call.positive = repeat<S>(positives, call.positive, call.line, times);
    call.line *= times;
  }
  if (!call.coefficients) call.coefficient_step = 0;
  Totals totals = {};
  Piece<T> piece = {};
  piece.option = static_cast<T>(call.option);
  if (call.coefficients && !call.coefficient_step) {
    piece.coefficient = static_cast<T>(read<double>(call.coefficients, 0));
  }
  for (int64_t start = 0; start < call.count; start += call.line) {
    const int64_t left = call.count - start;
    const int64_t count = left < call.line ? left : call.line;
    take_line<S, T, G, B>(call, start, count, piece, buffers, totals);
  }
  given.total = total_of(totals);
  return kDone;
}

}  // namespace
}  // namespace losswire

extern "C" __attribute__((visibility("default")))
int32_t losswire_elements(losswire::Elements* call) { return losswire::run_here(*call); }

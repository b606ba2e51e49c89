// Evaluations read from the request message and written into the answer: the part that all losses
// share.
//
// It repeats the steps of `native/rows.py` around the rows (the mean's denominator, the gradient with
// respect to each value, the reduction) for evaluations without sample weights.
#pragma once

#include <time.h>

#include "calls.h"

namespace losswire {

// The offset of each part of the answer, and how the loss is formed. `native/binding.py` has the
// same structure.
struct Answer {
  int64_t loss_at;
  int64_t numbers_at;         // in the layout of `Numbers`
  int64_t queue_nanoseconds;
  double denominator;         // of the mean, if has_denominator; else that is the count
  int32_t has_denominator;
  int32_t mean;               // whether the loss is the mean; else the sum
};

// Offsets and widths of the numbers of a result; the tags between them are already written.
// `prepared/zero_copy.py` has the same layout.
struct Numbers {
  static constexpr int sum = 1, numerator = 10, denominator = 19;
  static constexpr int count = 28, queue = 34, compute = 44;
  static constexpr int count_width = 5, nanoseconds_width = 9;
};

// Writes a varint of a fixed width: every byte but the last says that another one follows.
ALWAYS_INLINE void write_varint(char* place, int64_t number, int width) {
  for (int i = 0; i < width; i++) {
    place[i] = static_cast<char>((number & 0x7F) | (i + 1 < width ? 0x80 : 0));
    number >>= 7;
  }
}

inline int64_t now() {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

// Computes `call`, of which `count` values count, and writes the loss and the numbers of the
// result; the call itself writes the gradients. The computation began at `start`.
template <class T, class Call>
int32_t write_answer(const Answer& layout, Call& call, bool gradient, int64_t count, int64_t start,
                    char* answer) {
  const double denominator = layout.has_denominator ? layout.denominator : static_cast<double>(count);
  const double one = 1.0;
  call.coefficients = gradient ? &one : nullptr;
  call.divisor = layout.mean ? denominator : 1.0;
  const int32_t result = run_here(call);
  if (result != kDone) return result;
  const double loss = layout.mean ? call.total / denominator : call.total;
  write<T>(answer + layout.loss_at, 0, static_cast<T>(loss));
  char* numbers = answer + layout.numbers_at;
  write<double>(numbers + Numbers::sum, 0, call.total);
  write<double>(numbers + Numbers::numerator, 0, call.total);
  write<double>(numbers + Numbers::denominator, 0, denominator);
  write_varint(numbers + Numbers::count, count, Numbers::count_width);
  write_varint(numbers + Numbers::queue, layout.queue_nanoseconds, Numbers::nanoseconds_width);
  write_varint(numbers + Numbers::compute, now() - start, Numbers::nanoseconds_width);
  return kDone;
}

// The address at an offset; null for the offset -1, which means that there is no tensor.
ALWAYS_INLINE const char* address_or_null(const char* base, int64_t at) {
  return at < 0 ? nullptr : base + at;
}

ALWAYS_INLINE char* address_or_null(char* base, int64_t at) { return at < 0 ? nullptr : base + at; }

}  // namespace losswire

// Evaluations whose tensors lie in the message that brought them: what is the same for all losses.
//
// What `closed_forms/rows.py` does around the rows (the mean's denominator, the gradient with
// respect to each value, the reduction), for the evaluations that need no more of it.
#pragma once

#include <time.h>

#include "calls.h"

namespace losswire {

// Where each part of the answer begins, and how the loss is formed. `native/binding.py` has the
// same structure.
struct Answer {
  int64_t loss_at;
  int64_t numbers_at;         // as `Numbers` lays them out
  int64_t queue_nanoseconds;
  double denominator;         // of the mean, if it is given; else it is the count
  int32_t given;
  int32_t mean;               // whether the loss is the mean; else the sum
};

// How the numbers of a result are written: tags, which are there, between values of fixed widths.
// `in_place.py` has the same layout.
struct Numbers {
  static constexpr int sum = 1, numerator = 10, denominator = 19, count = 28, queue = 34, compute = 44;
  static constexpr int count_width = 5, nanoseconds_width = 9;
};

// A varint that says of each byte but the last that another one follows, whether it needs it or not.
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

// Computes `call`, whose tensors are in place and whose `count` values count, and writes what
// comes of it but the gradients, which the call has the places of. The computation began at `start`.
template <class T, class Call>
int32_t answer_with(const Answer& given, Call& call, bool gradient, int64_t count, int64_t start,
                    char* answer) {
  const double denominator = given.given ? given.denominator : static_cast<double>(count);
  const double coefficient = given.mean ? 1.0 / denominator : 1.0;
  call.coefficients = gradient ? &coefficient : nullptr;
  const int32_t result = run_here(call);
  if (result != kDone) return result;
  const double loss = given.mean ? call.total / denominator : call.total;
  write<T>(answer + given.loss_at, 0, static_cast<T>(loss));
  char* numbers = answer + given.numbers_at;
  write<double>(numbers + Numbers::sum, 0, call.total);
  write<double>(numbers + Numbers::numerator, 0, call.total);
  write<double>(numbers + Numbers::denominator, 0, denominator);
  write_varint(numbers + Numbers::count, count, Numbers::count_width);
  write_varint(numbers + Numbers::queue, given.queue_nanoseconds, Numbers::nanoseconds_width);
  write_varint(numbers + Numbers::compute, now() - start, Numbers::nanoseconds_width);
  return kDone;
}

// The place of what begins at `at`; null where that is -1, because there is none.
ALWAYS_INLINE const char* at_or_null(const char* base, int64_t at) {
  return at < 0 ? nullptr : base + at;
}

ALWAYS_INLINE char* at_or_null(char* base, int64_t at) { return at < 0 ? nullptr : base + at; }

}  // namespace losswire

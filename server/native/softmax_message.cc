// Cross entropy of a small evaluation whose tensors lie in the message that brought them.
//
// What `closed_forms/rows.py` does around the rows (the classes' check, the mean's denominator, the
// gradient with respect to each value, the reduction), for the evaluations that need no more of it.

#include <time.h>

namespace losswire {
namespace {

// `native/binding.py` has the same structure.
struct SoftmaxMessage {
  SoftmaxRows rows;          // all that does not depend on the message
  int64_t logits_at;         // where each tensor begins in the evaluation
  int64_t target_at;
  int64_t weight_at;         // -1: there is none
  int64_t gradient_at;       // where each part of the answer begins; -1: there is none
  int64_t loss_at;
  int64_t numbers_at;        // as `Numbers` lays them out
  int64_t queue_nanoseconds;
  double denominator;        // of the mean, if it is given
  int32_t given;
  int32_t mean;              // whether the loss is the mean; else the sum
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

int64_t now() {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

// Counts the rows that are not ignored; -1 when a class is wrong.
int64_t count_rows(const SoftmaxRows& rows) {
  int64_t count = 0;
  for (int64_t row = 0; row < rows.rows; row++) {
    const int64_t target = read<int64_t>(rows.target, row);
    if (target == rows.ignore_index) continue;
    if (target < 0 || target >= rows.classes) return -1;
    count++;
  }
  return count;
}

template <class T>
int32_t run_message(const SoftmaxMessage& call, SoftmaxRows& rows, char* answer) {
  const int64_t start = now();
  const int64_t count = count_rows(rows);
  if (count < 0) return kWrongClass;
  const double denominator = call.given ? call.denominator : static_cast<double>(count);
  const double coefficient = call.mean ? 1.0 / denominator : 1.0;
  rows.coefficients = rows.gradient ? &coefficient : nullptr;
  const int32_t result = run_here(rows);
  if (result != kDone) return result;
  const double loss = call.mean ? rows.total / denominator : rows.total;
  write<T>(answer + call.loss_at, 0, static_cast<T>(loss));
  char* numbers = answer + call.numbers_at;
  write<double>(numbers + Numbers::sum, 0, rows.total);
  write<double>(numbers + Numbers::numerator, 0, rows.total);
  write<double>(numbers + Numbers::denominator, 0, denominator);
  write_varint(numbers + Numbers::count, count, Numbers::count_width);
  write_varint(numbers + Numbers::queue, call.queue_nanoseconds, Numbers::nanoseconds_width);
  write_varint(numbers + Numbers::compute, now() - start, Numbers::nanoseconds_width);
  return kDone;
}

}  // namespace
}  // namespace losswire

// Computes the evaluation that begins at `start` of a message into the answer at `answer`.
extern "C" __attribute__((visibility("default")))
int32_t losswire_softmax_message(const losswire::SoftmaxMessage* call, const char* message,
                                 int64_t start, char* answer) {
  const char* evaluation = message + start;
  losswire::SoftmaxRows rows = call->rows;
  rows.logits = evaluation + call->logits_at;
  rows.target = evaluation + call->target_at;
  rows.weight = call->weight_at < 0 ? nullptr : evaluation + call->weight_at;
  rows.gradient = call->gradient_at < 0 ? nullptr : answer + call->gradient_at;
  return rows.logits_type == losswire::kFloat64
             ? losswire::run_message<double>(*call, rows, answer)
             : losswire::run_message<float>(*call, rows, answer);
}

// Cross entropy, read from the request message and written into the answer.
#include "message.h"

namespace losswire {
namespace {

// `native/binding.py` has the same structure.
struct SoftmaxMessage {
  Answer answer;
  SoftmaxRows rows;  // everything that does not depend on the message
  int64_t logits_at;  // offset of each tensor in the evaluation
  int64_t target_at;
  int64_t weight_at;  // -1: there is none
  int64_t gradient_at;  // offset in the answer; -1: there is none
};

// Returns the number of rows that are not ignored; -1 when a class is wrong.
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

}  // namespace
}  // namespace losswire

// Computes the evaluation at offset `start` of a message into the answer at `answer`.
extern "C" __attribute__((visibility("default")))
int32_t losswire_softmax_message(const losswire::SoftmaxMessage* call, const char* message,
                                 int64_t start, char* answer) {
  using namespace losswire;
  const int64_t began = now();
  const char* evaluation = message + start;
  SoftmaxRows rows = call->rows;
  rows.logits = evaluation + call->logits_at;
  rows.target = evaluation + call->target_at;
  rows.weight = address_or_null(evaluation, call->weight_at);
  rows.gradient = address_or_null(answer, call->gradient_at);
  const int64_t count = count_rows(rows);
  if (count < 0) return kWrongClass;
  const bool gradient = rows.gradient != nullptr;
  return rows.read_type == kFloat64
             ? write_answer<double>(call->answer, rows, gradient, count, began, answer)
             : write_answer<float>(call->answer, rows, gradient, count, began, answer);
}

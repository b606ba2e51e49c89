// Cross entropy of a small evaluation whose tensors lie in the message that brought them.
//
// What `closed_forms/rows.py` does around the rows (the classes' check, the mean's denominator, the
// gradient with respect to each value, the reduction), for the evaluations that need no more of it.

namespace losswire {
namespace {

// `native/library.py` has the same structure.
struct SoftmaxMessage {
  SoftmaxRows rows;    // all that does not depend on the message
  int64_t logits_at;   // where each tensor begins in the message
  int64_t target_at;
  int64_t weight_at;   // -1: there is none
  int32_t mean;        // whether the loss is the mean; else the sum
  int32_t given;       // whether the denominator was given
  double denominator;  // given, or found
  int64_t count;       // found: the rows that are not ignored
  void* loss;          // where to put the loss, in the type computed in
};

// Counts what the denominator of the mean follows from; false when a class is wrong.
template <class T>
bool count_rows(SoftmaxMessage& call) {
  const SoftmaxRows& rows = call.rows;
  int64_t count = 0;
  double weights = 0.0;
  for (int64_t row = 0; row < rows.rows; row++) {
    const int64_t target = read<int64_t>(rows.target, row);
    if (target == rows.ignore_index) continue;
    if (target < 0 || target >= rows.classes) return false;
    count++;
    if (rows.weight) weights += read<T>(rows.weight, target);
  }
  call.count = count;
  if (!call.given) call.denominator = rows.weight ? weights : static_cast<double>(count);
  return true;
}

template <class T>
int32_t run_message(SoftmaxMessage& call) {
  if (!count_rows<T>(call)) return kWrongClass;
  const double coefficient = call.mean ? 1.0 / call.denominator : 1.0;
  call.rows.coefficients = call.rows.gradient ? &coefficient : nullptr;
  const int32_t result = run_here(call.rows);
  if (result != kDone) return result;
  const double total = call.rows.total;
  write<T>(call.loss, 0, static_cast<T>(call.mean ? total / call.denominator : total));
  return kDone;
}

}  // namespace
}  // namespace losswire

extern "C" __attribute__((visibility("default")))
int32_t losswire_softmax_message(losswire::SoftmaxMessage* call, const char* message) {
  call->rows.logits = message + call->logits_at;
  call->rows.target = message + call->target_at;
  call->rows.weight = call->weight_at < 0 ? nullptr : message + call->weight_at;
  return call->rows.logits_type == losswire::kFloat64 ? losswire::run_message<double>(*call)
                                                      : losswire::run_message<float>(*call);
}

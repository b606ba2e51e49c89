// Losses of single elements, read from the request message and written into the answer.
#include "message.h"

namespace losswire {
namespace {

// `native/binding.py` has the same structure.
struct ElementsMessage {
  Answer answer;
  Elements elements;  // everything that does not depend on the message
  int64_t input_at;   // offset of each tensor in the evaluation
  int64_t target_at;
  int64_t weight_at;  // -1: there is none
  int64_t pos_weight_at;
  int64_t input_gradient_at;  // offsets in the answer; -1: there is none
  int64_t target_gradient_at;
};

// Returns whether all numbers are in [0, 1]; NaN is not.
template <class S, class T>
bool are_probabilities(const void* base, int64_t count) {
  typedef Vector<T, 16> V;
  constexpr int lanes = lanes_of<T, 16>;
  const V zero = V{}, all = splat<V>(T(1));
  auto inside = zero == zero;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const V x = Stored<S>::template load<16>(base, i);
    inside &= (x >= zero) & (x <= all);
  }
  bool rest = true;
  for (; i < count; i++) {
    const T x = Stored<S>::one(base, i);
    rest = rest && x >= T(0) && x <= T(1);
  }
  for (int k = 0; k < lanes; k++) rest = rest && inside[k];
  return rest;
}

bool are_probabilities(const void* base, const Elements& elements) {
  switch (elements.read_type) {
    case kFloat16: return are_probabilities<Float16, float>(base, elements.count);
    case kBfloat16: return are_probabilities<Bfloat16, float>(base, elements.count);
    case kFloat32: return are_probabilities<float, float>(base, elements.count);
    default: return are_probabilities<double, double>(base, elements.count);
  }
}

// Returns whether a loss accepts its numbers; most accept any.
bool are_accepted(const Elements& elements) {
  return elements.loss != kBce || (are_probabilities(elements.input, elements) &&
                                   are_probabilities(elements.target, elements));
}

}  // namespace
}  // namespace losswire

// Computes the evaluation at offset `start` of a message into the answer at `answer`.
extern "C" __attribute__((visibility("default")))
int32_t losswire_elements_message(const losswire::ElementsMessage* call, const char* message,
                                  int64_t start, char* answer) {
  using namespace losswire;
  const int64_t began = now();
  const char* evaluation = message + start;
  Elements elements = call->elements;
  elements.input = evaluation + call->input_at;
  elements.target = evaluation + call->target_at;
  if (!are_accepted(elements)) return kWrongValue;
  elements.weight = address_or_null(evaluation, call->weight_at);
  elements.pos_weight = address_or_null(evaluation, call->pos_weight_at);
  elements.input_gradient = address_or_null(answer, call->input_gradient_at);
  elements.target_gradient = address_or_null(answer, call->target_gradient_at);
  const bool gradient = elements.input_gradient || elements.target_gradient;
  return elements.read_type == kFloat64
             ? write_answer<double>(call->answer, elements, gradient, elements.count, began, answer)
             : write_answer<float>(call->answer, elements, gradient, elements.count, began, answer);
}

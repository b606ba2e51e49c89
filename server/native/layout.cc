// The layouts and numbers that Python repeats, for the test that compares them with its own.
#include <stddef.h>

#include "calls.h"
#include "message.h"

namespace losswire {
namespace {

struct Fact {
  const char* name;  // null after the last one
  int64_t number;    // a size or an offset in bytes, or the number of a constant
};

#define SIZE(type) {#type, sizeof(type)}
#define FIELD(type, field) {#type "." #field, offsetof(type, field)}
#define OFFSET(field) {"Numbers." #field, Numbers::field}
#define NUMBER(group, name, value) {#group "." #name, value}

constexpr Fact kLayout[] = {
    SIZE(SoftmaxRows),
    FIELD(SoftmaxRows, rows),
    FIELD(SoftmaxRows, classes),
    FIELD(SoftmaxRows, logits),
    FIELD(SoftmaxRows, target),
    FIELD(SoftmaxRows, weight),
    FIELD(SoftmaxRows, removed),
    FIELD(SoftmaxRows, coefficients),
    FIELD(SoftmaxRows, coefficient_step),
    FIELD(SoftmaxRows, divisor),
    FIELD(SoftmaxRows, gradient),
    FIELD(SoftmaxRows, values),
    FIELD(SoftmaxRows, factors),
    FIELD(SoftmaxRows, factor_step),
    FIELD(SoftmaxRows, ignore_index),
    FIELD(SoftmaxRows, smoothing),
    FIELD(SoftmaxRows, read_type),
    FIELD(SoftmaxRows, gradient_type),
    FIELD(SoftmaxRows, most_vector_bytes),
    FIELD(SoftmaxRows, likelihood),
    FIELD(SoftmaxRows, total),
    SIZE(SummaryRows),
    FIELD(SummaryRows, rows),
    FIELD(SummaryRows, values),
    FIELD(SummaryRows, group),
    FIELD(SummaryRows, origin),
    FIELD(SummaryRows, counts),
    FIELD(SummaryRows, sums),
    FIELD(SummaryRows, first),
    FIELD(SummaryRows, second),
    FIELD(SummaryRows, minimum),
    FIELD(SummaryRows, maximum),
    FIELD(SummaryRows, indices),
    FIELD(SummaryRows, weights),
    FIELD(SummaryRows, stride),
    FIELD(SummaryRows, first_index),
    FIELD(SummaryRows, below),
    FIELD(SummaryRows, bound),
    FIELD(SummaryRows, scale),
    FIELD(SummaryRows, shift),
    SIZE(Elements),
    FIELD(Elements, count),
    FIELD(Elements, line),
    FIELD(Elements, input),
    FIELD(Elements, target),
    FIELD(Elements, weight),
    FIELD(Elements, pos_weight),
    FIELD(Elements, removed),
    FIELD(Elements, coefficients),
    FIELD(Elements, coefficient_step),
    FIELD(Elements, divisor),
    FIELD(Elements, input_gradient),
    FIELD(Elements, target_gradient),
    FIELD(Elements, values),
    FIELD(Elements, option),
    FIELD(Elements, loss),
    FIELD(Elements, weight_repeats),
    FIELD(Elements, pos_weight_repeats),
    FIELD(Elements, read_type),
    FIELD(Elements, gradient_type),
    FIELD(Elements, most_vector_bytes),
    FIELD(Elements, total),
    SIZE(JsonArray),
    FIELD(JsonArray, start),
    FIELD(JsonArray, stop),
    FIELD(JsonArray, count),
    FIELD(JsonArray, shape),
    FIELD(JsonArray, axes),
    FIELD(JsonArray, kind),
    SIZE(Answer),
    FIELD(Answer, loss_at),
    FIELD(Answer, numbers_at),
    FIELD(Answer, queue_nanoseconds),
    FIELD(Answer, denominator),
    FIELD(Answer, has_denominator),
    FIELD(Answer, mean),
    SIZE(SoftmaxMessage),
    FIELD(SoftmaxMessage, answer),
    FIELD(SoftmaxMessage, rows),
    FIELD(SoftmaxMessage, logits_at),
    FIELD(SoftmaxMessage, target_at),
    FIELD(SoftmaxMessage, weight_at),
    FIELD(SoftmaxMessage, gradient_at),
    SIZE(ElementsMessage),
    FIELD(ElementsMessage, answer),
    FIELD(ElementsMessage, elements),
    FIELD(ElementsMessage, input_at),
    FIELD(ElementsMessage, target_at),
    FIELD(ElementsMessage, weight_at),
    FIELD(ElementsMessage, pos_weight_at),
    FIELD(ElementsMessage, input_gradient_at),
    FIELD(ElementsMessage, target_gradient_at),
    OFFSET(sum),
    OFFSET(numerator),
    OFFSET(denominator),
    OFFSET(count),
    OFFSET(queue),
    OFFSET(compute),
    OFFSET(count_width),
    OFFSET(nanoseconds_width),
    NUMBER(Result, DONE, kDone),
    NUMBER(Result, UNKNOWN_TYPE, kUnknownType),
    NUMBER(Result, WRONG_CLASS, kWrongClass),
    NUMBER(Result, NO_MEMORY, kNoMemory),
    NUMBER(Result, UNKNOWN_LOSS, kUnknownLoss),
    NUMBER(Result, WRONG_VALUE, kWrongValue),
    NUMBER(ElementKind, INTEGER, kInteger),
    NUMBER(ElementKind, REAL, kReal),
    NUMBER(ElementKind, BOOL, kBool),
    NUMBER(LossNumber, MSE, kMse),
    NUMBER(LossNumber, L1, kL1),
    NUMBER(LossNumber, SMOOTH_L1, kSmoothL1),
    NUMBER(LossNumber, HUBER, kHuber),
    NUMBER(LossNumber, BCE_WITH_LOGITS, kBceWithLogits),
    NUMBER(LossNumber, BCE_WITH_POS_WEIGHT, kBceWithPosWeight),
    NUMBER(LossNumber, BCE, kBce),
    NUMBER(LossNumber, KL_DIV, kKlDiv),
    NUMBER(LossNumber, KL_DIV_LOG, kKlDivLog),
    NUMBER(LossNumber, count, kLossCount),
    NUMBER(DataType, float16, kFloat16),
    NUMBER(DataType, bfloat16, kBfloat16),
    NUMBER(DataType, float32, kFloat32),
    NUMBER(DataType, float64, kFloat64),
    {nullptr, 0},
};

#undef SIZE
#undef FIELD
#undef OFFSET
#undef NUMBER

}  // namespace
}  // namespace losswire

extern "C" __attribute__((visibility("default")))
const losswire::Fact* losswire_layout() { return losswire::kLayout; }

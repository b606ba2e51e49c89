#include "train.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

#include <grpcpp/grpcpp.h>

#include "tensors.h"

namespace v1 = losswire::v1;

namespace {

constexpr int kSteps = 300;
constexpr double kRate = 0.5;

// A linear congruential generator of numbers in [0, 1), the same in every language.
class Generator {
 public:
  double operator()() {
    state_ = 1664525U * state_ + 1013904223U;
    return state_ / 4294967296.0;
  }

 private:
  uint32_t state_ = 1;
};

void descend(std::vector<double>& weights, const std::vector<double>& gradient) {
  for (size_t i = 0; i < weights.size(); ++i) weights[i] -= kRate * gradient[i];
}

}  // namespace

Model::Model()
    : points(kPoints * 2), w1(2 * kHidden), b1(kHidden), w2(kHidden * kClasses), b2(kClasses),
      hidden(kPoints * kHidden), logits(kPoints * kClasses), classes(kPoints) {
  Generator random;
  for (double& value : points) value = 2 * random() - 1;
  for (int i = 0; i < kPoints; ++i) {
    const double square = points[2 * i] * points[2 * i] + points[2 * i + 1] * points[2 * i + 1];
    classes[i] = square < 0.25 ? 0 : square < 0.75 ? 1 : 2;
  }
  for (double& value : w1) value = 2 * random() - 1;
  for (double& value : b1) value = random() - 0.5;
  for (double& value : w2) value = random() - 0.5;
}

void Model::forward() {
  for (int i = 0; i < kPoints; ++i) {
    for (int j = 0; j < kHidden; ++j) {
      const double sum =
          b1[j] + points[2 * i] * w1[j] + points[2 * i + 1] * w1[kHidden + j];
      hidden[i * kHidden + j] = std::max(sum, 0.0);
    }
    for (int k = 0; k < kClasses; ++k) {
      double sum = b2[k];
      for (int j = 0; j < kHidden; ++j) sum += hidden[i * kHidden + j] * w2[j * kClasses + k];
      logits[i * kClasses + k] = sum;
    }
  }
}

void Model::backward(const std::vector<double>& gradient) {
  std::vector<double> dw1(w1.size()), db1(b1.size()), dw2(w2.size()), db2(b2.size());
  for (int i = 0; i < kPoints; ++i) {
    for (int k = 0; k < kClasses; ++k) db2[k] += gradient[i * kClasses + k];
    for (int j = 0; j < kHidden; ++j) {
      const double active = hidden[i * kHidden + j];
      if (active <= 0) continue;
      double inner = 0;
      for (int k = 0; k < kClasses; ++k) {
        const double outer = gradient[i * kClasses + k];
        dw2[j * kClasses + k] += active * outer;
        inner += outer * w2[j * kClasses + k];
      }
      dw1[j] += points[2 * i] * inner;
      dw1[kHidden + j] += points[2 * i + 1] * inner;
      db1[j] += inner;
    }
  }
  descend(w1, dw1);
  descend(b1, db1);
  descend(w2, dw2);
  descend(b2, db2);
}

int Model::right() const {
  int count = 0;
  for (int i = 0; i < kPoints; ++i) {
    const auto row = logits.begin() + i * kClasses;
    count += std::max_element(row, row + kClasses) - row == classes[i];
  }
  return count;
}

v1::Evaluation question(const std::vector<double>& logits, const v1::Tensor& target) {
  v1::Evaluation evaluation;
  evaluation.set_loss("cross_entropy");
  (*evaluation.mutable_inputs())["input"] = float32(logits, {kPoints, kClasses});
  (*evaluation.mutable_inputs())["target"] = target;
  evaluation.set_reduction(v1::REDUCTION_MEAN);
  evaluation.add_gradients_for("input");
  return evaluation;
}

void train(v1::LossService::Stub& stub) {
  Model model;
  const v1::Tensor target = int64(model.classes, {kPoints});
  // One call for the whole training: a request and a response for each step.
  grpc::ClientContext context;
  const auto call = stub.EvaluateStream(&context);
  double loss = std::nan("");
  for (int step = 0; step < kSteps; ++step) {
    model.forward();
    v1::EvaluateStreamRequest request;
    request.set_id(step);
    *request.mutable_evaluation() = question(model.logits, target);

    v1::EvaluateStreamResponse response;
    if (!call->Write(request) || !call->Read(&response)) {
      throw std::runtime_error("the stream ended: " + call->Finish().error_message());
    }
    if (!response.outcome().has_result()) {
      throw std::runtime_error("step failed: " + response.outcome().error().message());
    }
    const v1::EvaluationResult& result = response.outcome().result();
    loss = read(result.loss()).at(0);
    if (step % 50 == 0) std::printf("step %d loss %.9g\n", step, loss);
    model.backward(read(result.gradients().at("input")));
  }
  call->WritesDone();
  if (const grpc::Status status = call->Finish(); !status.ok()) {
    throw std::runtime_error("the stream failed: " + status.error_message());
  }
  model.forward();
  std::printf("final loss %.9g\naccuracy %d of %d\n", loss, model.right(), kPoints);
}

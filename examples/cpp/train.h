#pragma once

#include <cstdint>
#include <vector>

#include "losswire/v1/loss_service.grpc.pb.h"

// A two-layer network on points in three rings. The model, its data and its weights are those of
// examples/languages.md, so that every language reaches the same loss.

constexpr int kPoints = 256, kHidden = 16, kClasses = 3;

struct Model {
  std::vector<double> points, w1, b1, w2, b2, hidden, logits;
  std::vector<int64_t> classes;

  Model();
  void forward();
  // Propagates the gradient of the logits back to the weights, and takes one step.
  void backward(const std::vector<double>& gradient);
  // Returns the number of points whose class has the largest logit.
  int right() const;
};

// Returns the request for the loss of logits and for its gradient.
losswire::v1::Evaluation question(const std::vector<double>& logits,
                                  const losswire::v1::Tensor& target);

// Trains a model and prints its losses.
void train(losswire::v1::LossService::Stub& stub);

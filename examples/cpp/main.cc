// Trains a small model with losses and gradients from a Losswire server, replays the conformance
// vectors, and evaluates in memory shared with the server. Usage: losswire_example HOST:PORT VECTORS.
// Exits with 1 if an answer differs.

#include <cstdio>
#include <exception>

#include <grpcpp/grpcpp.h>

#include "local.h"
#include "losswire/v1/loss_service.grpc.pb.h"
#include "losswire/v1/tensor_service.grpc.pb.h"
#include "replay.h"
#include "train.h"

namespace v1 = losswire::v1;

int main(int count, char** arguments) try {
  if (count != 3) {
    std::fprintf(stderr, "usage: %s HOST:PORT VECTORS\n", arguments[0]);
    return 2;
  }
  const auto channel = grpc::CreateChannel(arguments[1], grpc::InsecureChannelCredentials());
  v1::LossService::Stub losses(channel);
  v1::TensorService::Stub tensors(channel);
  train(losses);
  int wrong = replay(losses, arguments[2]);
  wrong += local(losses, tensors);
  return wrong ? 1 : 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}

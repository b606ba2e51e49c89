#include "local.h"

#include <chrono>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <grpcpp/grpcpp.h>

#include "messages.h"
#include "region.h"
#include "tensors.h"
#include "train.h"

namespace v1 = losswire::v1;

namespace {

constexpr int kCalls = 1000;

// Copies the logits to the start of a region, and requests the gradient after them.
v1::EvaluateRequest place(const v1::EvaluateRequest& sent, const Region& region) {
  v1::EvaluateRequest placed = sent;
  v1::Evaluation& evaluation = *placed.mutable_evaluation();
  v1::Tensor& logits = evaluation.mutable_inputs()->at("input");
  const std::string data = logits.data();
  std::memcpy(region.memory(), data.data(), data.size());
  logits.mutable_region()->set_region_id(region.id());
  v1::Region& destination = (*evaluation.mutable_gradient_destinations())["input"];
  destination.set_region_id(region.id());
  destination.set_offset(data.size());
  return placed;
}

// Makes all calls; returns the microseconds of one.
template <typename Call>
double microseconds(Call call) {
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) call();
  const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - begun;
  return taken.count() / kCalls;
}

// Makes one local call; returns whether loss and gradient have the same bits as by gRPC.
bool agrees(Region& region, const std::string& request, const v1::EvaluationResult& want) {
  const std::string& gradient = want.gradients().at("input").data();
  std::memset(region.memory() + gradient.size(), 0, gradient.size());
  const auto [code, body] = region.call(request);
  if (code != 0) throw std::runtime_error("a local call failed with code " + std::to_string(code));
  const v1::EvaluationResult got = parse<v1::EvaluateResponse>(body).result();
  const v1::Tensor& found = got.gradients().at("input");
  std::string_view elements = found.data();
  if (found.has_region()) elements = {region.memory() + found.region().offset(), gradient.size()};
  return got.loss().data() == want.loss().data() && elements == gradient;
}

// Sends an invalid request both ways; the statuses must be equal.
void compare_refusals(v1::LossService::Stub& stub, Region& region, v1::EvaluateRequest wrong) {
  wrong.mutable_evaluation()->mutable_inputs()->at("input").mutable_region()->set_offset(1);
  grpc::ClientContext context;
  v1::EvaluateResponse response;
  const grpc::Status status = stub.Evaluate(&context, wrong, &response);
  const auto [code, body] = region.call(wrong.SerializeAsString());
  if (status.ok() || static_cast<int>(code) != status.error_code() ||
      facts(parse<google::rpc::Status>(body)) !=
          facts(parse<google::rpc::Status>(status.error_details()))) {
    throw std::runtime_error("a wrong request has code " + std::to_string(code) + " locally, and " +
                             std::to_string(status.error_code()) + " by gRPC");
  }
}

// Compares calls over a lease with the same calls by gRPC; returns the number that differ.
int compare_calls(v1::LossService::Stub& stub, Region& region, const v1::EvaluateRequest& sent) {
  const v1::EvaluateRequest placed = place(sent, region);
  compare_refusals(stub, region, placed);
  v1::EvaluateResponse expected;
  const double remote = microseconds([&] {
    grpc::ClientContext context;
    const grpc::Status status = stub.Evaluate(&context, sent, &expected);
    if (!status.ok()) throw std::runtime_error("Evaluate: " + status.error_message());
  });
  int right = 0;
  std::vector<double> times;
  for (const v1::EvaluateRequest& each : {sent, placed}) {
    // With tensors in place, the next step would send the same bytes again.
    const std::string request = each.SerializeAsString();
    times.push_back(microseconds([&] { right += agrees(region, request, expected.result()); }));
  }
  std::printf("%d of %d local calls agree\n", right, 2 * kCalls);
  std::printf("microseconds a call: %.0f by gRPC, %.0f local, %.0f local and in place\n", remote,
              times[0], times[1]);
  return 2 * kCalls - right;
}

}  // namespace

int local(v1::LossService::Stub& stub, v1::TensorService::Stub& tensors) {
  v1::GetServerInfoResponse info;
  grpc::ClientContext context;
  const grpc::Status status = stub.GetServerInfo(&context, {}, &info);
  if (!status.ok()) throw std::runtime_error("GetServerInfo: " + status.error_message());
  if (info.transports().region_socket().empty()) {
    std::puts("no local calls: the server shares no memory");
    return 0;
  }
  Model model;
  model.forward();
  v1::EvaluateRequest sent;
  *sent.mutable_evaluation() = question(model.logits, int64(model.classes, {kPoints}));
  const size_t size = sent.evaluation().inputs().at("input").data().size();
  try {
    Region region(tensors, 2 * size);
    return compare_calls(stub, region, sent);
  } catch (const Region::Unreachable& error) {
    // The server is in a container, on another machine, or another user's.
    std::printf("no local calls: %s\n", error.what());
    return 0;
  }
}

// Trains a small model with losses and gradients from a Losswire server, replays the conformance
// vectors, and evaluates in memory shared with the server. Usage: losswire_example HOST:PORT VECTORS.
// Exits with 1 if an answer differs.

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "losswire/v1/loss_service.grpc.pb.h"
#include "region.h"

namespace v1 = losswire::v1;
using Json = google::protobuf::Struct;
using JsonValue = google::protobuf::Value;

// ---- tensors: row-major, little-endian -----------------------------------------------------------

template <typename To, typename From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// Writes and reads byte by byte, so that the byte order of this machine does not matter.
template <typename Bits>
void append(std::string& data, Bits bits) {
  for (size_t i = 0; i < sizeof(bits); ++i) data.push_back(static_cast<char>(bits >> (8 * i)));
}

template <typename Bits>
Bits take(const std::string& data, size_t index) {
  Bits bits = 0;
  for (size_t i = 0; i < sizeof(bits); ++i) {
    const auto byte = static_cast<unsigned char>(data[index * sizeof(bits) + i]);
    bits |= static_cast<Bits>(static_cast<Bits>(byte) << (8 * i));
  }
  return bits;
}

v1::Tensor float32(const std::vector<double>& values, const std::vector<int64_t>& shape) {
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_FLOAT32);
  tensor.mutable_shape()->Assign(shape.begin(), shape.end());
  std::string& data = *tensor.mutable_data();
  data.reserve(values.size() * 4);
  for (double value : values) append(data, bit_cast<uint32_t>(static_cast<float>(value)));
  return tensor;
}

v1::Tensor int64(const std::vector<int64_t>& values, const std::vector<int64_t>& shape) {
  v1::Tensor tensor;
  tensor.set_data_type(v1::DATA_TYPE_INT64);
  tensor.mutable_shape()->Assign(shape.begin(), shape.end());
  std::string& data = *tensor.mutable_data();
  for (int64_t value : values) append(data, static_cast<uint64_t>(value));
  return tensor;
}

double widen_float16(uint16_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = (bits >> 10) & 0x1f;
  const int fraction = bits & 0x3ff;
  if (exponent == 0x1f) return fraction ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

double widen_bfloat16(uint16_t bits) { return bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

std::vector<double> read(const v1::Tensor& tensor) {
  const std::string& data = tensor.data();
  const auto collect = [&data](auto bits, auto widen) {
    std::vector<double> values(data.size() / sizeof(bits));
    for (size_t i = 0; i < values.size(); ++i) values[i] = widen(take<decltype(bits)>(data, i));
    return values;
  };
  switch (tensor.data_type()) {
    case v1::DATA_TYPE_FLOAT16:
      return collect(uint16_t{}, widen_float16);
    case v1::DATA_TYPE_BFLOAT16:
      return collect(uint16_t{}, widen_bfloat16);
    case v1::DATA_TYPE_FLOAT32:
      return collect(uint32_t{}, [](uint32_t bits) { return double{bit_cast<float>(bits)}; });
    case v1::DATA_TYPE_FLOAT64:
      return collect(uint64_t{}, [](uint64_t bits) { return bit_cast<double>(bits); });
    default:
      throw std::runtime_error("not a floating tensor: " + v1::DataType_Name(tensor.data_type()));
  }
}

// ---- training ------------------------------------------------------------------------------------
// A two-layer network on points in three rings. The model, its data and its weights are those of
// examples/languages.md, so that every language reaches the same loss.

constexpr int kPoints = 256, kHidden = 16, kClasses = 3, kSteps = 300;
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

struct Model {
  std::vector<double> points, w1, b1, w2, b2, hidden, logits;
  std::vector<int64_t> classes;

  Model()
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

  void forward() {
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

  // Carries the gradient of the logits on to the weights, and takes one step.
  void backward(const std::vector<double>& gradient) {
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

  int right() const {
    int count = 0;
    for (int i = 0; i < kPoints; ++i) {
      const auto row = logits.begin() + i * kClasses;
      count += std::max_element(row, row + kClasses) - row == classes[i];
    }
    return count;
  }

 private:
  static void descend(std::vector<double>& weights, const std::vector<double>& gradient) {
    for (size_t i = 0; i < weights.size(); ++i) weights[i] -= kRate * gradient[i];
  }
};

// Asks for the loss of logits, and for its gradient.
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
  // One call for the whole training: a message there and a message back for each step.
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

// ---- replaying: the rules stand beside the vectors, in tests/conformance/README.md ----------------

using Problems = std::vector<std::string>;
// Code, domain, reason and the distinct field paths of an error.
using Facts = std::tuple<int, std::string, std::string, std::set<std::string>>;

std::string load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename Message>
Message parse(const std::string& data) {
  Message message;
  if (!message.ParseFromString(data)) throw std::runtime_error("not a " + message.GetTypeName());
  return message;
}

const JsonValue& member(const JsonValue& value, const std::string& name) {
  return value.struct_value().fields().at(name);
}

bool near(double got, double want, const JsonValue& tolerance) {
  static const std::map<std::string, int> mantissa_bits = {
      {"FLOAT16", 10}, {"BFLOAT16", 7}, {"FLOAT32", 23}, {"FLOAT64", 52}};
  const double ulps = member(tolerance, "ulps").number_value();
  if (std::isnan(want)) return std::isnan(got);
  if (std::isinf(want) || ulps == 0) return got == want;
  const int bits = mantissa_bits.at(member(tolerance, "of").string_value());
  const double scale = std::max(std::abs(want), member(tolerance, "scale").number_value());
  return std::abs(got - want) <= ulps * std::ldexp(scale, -bits);
}

void compare(Problems& problems, const std::string& path, double got, double want,
             const JsonValue& tolerance) {
  if (near(got, want, tolerance)) return;
  std::array<char, 128> text{};
  std::snprintf(text.data(), text.size(), " is %.17g; expected %.17g", got, want);
  problems.push_back(path + text.data());
}

void compare(Problems& problems, const std::string& path, const v1::Tensor& got,
             const v1::Tensor& want, const JsonValue& tolerance) {
  if (got.data_type() != want.data_type() ||
      !std::equal(got.shape().begin(), got.shape().end(), want.shape().begin(),
                  want.shape().end())) {
    problems.push_back(path + " has another data type or shape: " + got.ShortDebugString());
    return;
  }
  const std::vector<double> values = read(got), wanted = read(want);
  for (size_t i = 0; i < wanted.size(); ++i) {
    compare(problems, path + "[" + std::to_string(i) + "]", values.at(i), wanted[i], tolerance);
  }
}

void compare(Problems& problems, const v1::EvaluationResult& got, const v1::EvaluationResult& want,
             const JsonValue& tolerance) {
  compare(problems, "loss", got.loss(), want.loss(), member(tolerance, "loss"));
  compare(problems, "sum", got.sum(), want.sum(), member(tolerance, "sum"));
  compare(problems, "mean_numerator", got.mean_numerator(), want.mean_numerator(),
          member(tolerance, "mean_numerator"));
  compare(problems, "mean_denominator", got.mean_denominator(), want.mean_denominator(),
          member(tolerance, "mean_denominator"));
  if (got.count() != want.count()) problems.push_back("count is " + std::to_string(got.count()));
  if (got.gradients_size() != want.gradients_size()) {
    problems.push_back(std::to_string(got.gradients_size()) + " gradients");
  }
  for (const auto& [name, gradient] : want.gradients()) {
    const auto found = got.gradients().find(name);
    if (found == got.gradients().end()) {
      problems.push_back("there is no gradient for " + name);
      continue;
    }
    compare(problems, "gradients." + name, found->second, gradient,
            member(member(tolerance, "gradients"), name));
  }
  const v1::Receipt &told = got.receipt(), &asked = want.receipt();
  if (!asked.engine().empty() && told.engine() != asked.engine()) {
    problems.push_back("engine is " + told.engine());
  }
  if (told.compute_data_type() != asked.compute_data_type()) {
    problems.push_back("computed in " + v1::DataType_Name(told.compute_data_type()));
  }
}

Facts facts(const google::rpc::Status& status) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest request;
  for (const auto& detail : status.details()) {
    detail.UnpackTo(&info);
    detail.UnpackTo(&request);
  }
  std::set<std::string> fields;
  for (const auto& violation : request.field_violations()) fields.insert(violation.field());
  return {status.code(), info.domain(), info.reason(), fields};
}

Facts facts(const v1::Status& status) {
  std::set<std::string> fields;
  for (const auto& violation : status.violations()) fields.insert(violation.field());
  return {status.code(), "", status.reason(), fields};
}

void compare(Problems& problems, const v1::EvaluationOutcome& got,
             const v1::EvaluationOutcome& want, const JsonValue& tolerance) {
  if (got.outcome_case() != want.outcome_case()) {
    problems.push_back("an outcome of the other kind: " + got.ShortDebugString());
  } else if (want.has_result()) {
    compare(problems, got.result(), want.result(), tolerance);
  } else if (facts(got.error()) != facts(want.error())) {
    problems.push_back("another error: " + got.error().ShortDebugString());
  }
}

Problems check(v1::LossService::Stub& stub, const JsonValue& vector, const std::string& stem) {
  const std::string request = load(stem + ".request.binpb");
  const std::string expected = load(stem + ".response.binpb");
  const auto& tolerances = member(vector, "tolerances").list_value().values();
  const bool many = member(vector, "method").string_value() == "EvaluateMany";
  grpc::ClientContext context;
  grpc::Status status;
  v1::EvaluateResponse one;
  v1::EvaluateManyResponse several;
  if (many) {
    status = stub.EvaluateMany(&context, parse<v1::EvaluateManyRequest>(request), &several);
  } else {
    status = stub.Evaluate(&context, parse<v1::EvaluateRequest>(request), &one);
  }
  if (member(vector, "code").number_value() != 0) {
    const auto want = facts(parse<google::rpc::Status>(expected));
    const auto got = facts(parse<google::rpc::Status>(status.error_details()));
    if (static_cast<int>(status.error_code()) == std::get<0>(want) && got == want) return {};
    return {"another status: " + std::to_string(status.error_code()) + " " +
            status.error_message()};
  }
  if (!status.ok()) return {"failed: " + status.error_message()};
  Problems problems;
  if (!many) {
    const auto want = parse<v1::EvaluateResponse>(expected);
    compare(problems, one.result(), want.result(), tolerances[0]);
    return problems;
  }
  const auto want = parse<v1::EvaluateManyResponse>(expected);
  if (several.outcomes_size() != want.outcomes_size()) {
    return {std::to_string(several.outcomes_size()) + " outcomes"};
  }
  for (int i = 0; i < want.outcomes_size(); ++i) {
    compare(problems, several.outcomes(i), want.outcomes(i), tolerances[i]);
  }
  return problems;
}

// Replays all vectors of a folder; gives how many answers were wrong.
int replay(v1::LossService::Stub& stub, const std::string& folder) {
  Json index;
  // protobuf reads JSON as well, which spares a second library.
  if (!google::protobuf::util::JsonStringToMessage(load(folder + "/index.json"), &index).ok()) {
    throw std::runtime_error("index.json is not JSON");
  }
  const auto& vectors = index.fields().at("vectors").list_value().values();
  int wrong = 0;
  for (const JsonValue& vector : vectors) {
    const std::string& name = member(vector, "name").string_value();
    const Problems problems = check(stub, vector, folder + "/vectors/" + name);
    for (const std::string& problem : problems) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), problem.c_str());
    }
    wrong += !problems.empty();
  }
  std::printf("%d of %d vectors agree\n", vectors.size() - wrong, vectors.size());
  return wrong;
}

// ---- local calls: where the server shares memory, requests need not go by gRPC ---------------------

constexpr int kCalls = 1000;

// Puts the logits at the start of a region, and asks for the gradient behind them.
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

// Makes all calls and gives how many microseconds one takes.
template <typename Call>
double microseconds(Call call) {
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < kCalls; ++i) call();
  const std::chrono::duration<double, std::micro> taken = std::chrono::steady_clock::now() - begun;
  return taken.count() / kCalls;
}

// Makes one local call and tells whether loss and gradient have the bits that gRPC gave.
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

// Sends a wrong request both ways; the statuses have to agree.
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

// Compares calls over a lease with the same ones by gRPC; gives how many differ.
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

// Evaluates without gRPC, if the server shares memory; gives how many answers differ.
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

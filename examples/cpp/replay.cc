#include "replay.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <vector>

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include "messages.h"
#include "tensors.h"

namespace v1 = losswire::v1;
using Json = google::protobuf::Struct;
using JsonValue = google::protobuf::Value;

namespace {

using Problems = std::vector<std::string>;

std::string load(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
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

}  // namespace

int replay(v1::LossService::Stub& stub, const std::string& folder) {
  Json index;
  // protobuf can read JSON too, so that no second library is needed.
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

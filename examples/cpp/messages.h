#pragma once

#include <set>
#include <stdexcept>
#include <string>
#include <tuple>

#include "google/rpc/status.pb.h"
#include "losswire/v1/status.pb.h"

// Parses a message; throws where the bytes are none.
template <typename Message>
Message parse(const std::string& data) {
  Message message;
  if (!message.ParseFromString(data)) throw std::runtime_error("not a " + message.GetTypeName());
  return message;
}

// The code, domain, reason and distinct field paths of an error.
using Facts = std::tuple<int, std::string, std::string, std::set<std::string>>;

// Returns the facts of a failed call.
Facts facts(const google::rpc::Status& status);

// Returns the facts of the error of one item of many; these have no domain.
Facts facts(const losswire::v1::Status& status);

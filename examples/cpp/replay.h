#pragma once

#include <string>

#include "losswire/v1/loss_service.grpc.pb.h"

// Replays all conformance vectors of a folder; returns the number of wrong answers. The rules are in
// tests/conformance/README.md.
int replay(losswire::v1::LossService::Stub& stub, const std::string& folder);

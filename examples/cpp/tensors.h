#pragma once

#include <cstdint>
#include <vector>

#include "losswire/v1/tensor.pb.h"

// Tensors of the contract are row-major and little-endian.

losswire::v1::Tensor float32(const std::vector<double>& values, const std::vector<int64_t>& shape);
losswire::v1::Tensor int64(const std::vector<int64_t>& values, const std::vector<int64_t>& shape);

// Returns the elements of a floating-point tensor of any type.
std::vector<double> read(const losswire::v1::Tensor& tensor);

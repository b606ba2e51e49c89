#include "tensors.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace v1 = losswire::v1;

namespace {

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

double widen_float16(uint16_t bits) {
  const double sign = bits & 0x8000 ? -1 : 1;
  const int exponent = (bits >> 10) & 0x1f;
  const int fraction = bits & 0x3ff;
  if (exponent == 0x1f) return fraction ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}

double widen_bfloat16(uint16_t bits) { return bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

}  // namespace

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

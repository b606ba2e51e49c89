// Decimal numbers in JSON's grammar to binary ones, rounded correctly: to the nearest, ties to even.
#pragma once

#include <locale.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__APPLE__)
#include <xlocale.h>
#endif

namespace losswire {

// The decimal digits that always fit into 64 bits.
constexpr int kExactDigits = 19;
// The largest power of five that is below 2^63.
constexpr int kExactPower = 27;
// Decimal exponents beyond this are all alike: no text is long enough to make up for them.
constexpr int64_t kMostExponent = 1 << 20;

// Integers up to here, and powers of ten up to 10^22, are exact in a double, so that their product
// or quotient is rounded once.
constexpr uint64_t kExactInteger = uint64_t{1} << 53;
constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                   1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                   1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
constexpr int64_t kMostPowerOfTen = 22;

inline bool is_digit(uint8_t byte) { return byte >= '0' && byte <= '9'; }

// A number as it is written: digits * 10^exponent.
struct Decimal {
  uint64_t digits;
  int64_t exponent;
  bool negative;
  bool integer;  // without a point and without an exponent
  bool exact;    // no digit is missing in `digits`
};

// Reads a number that is right, and moves `at` behind it.
inline Decimal read_decimal(const uint8_t*& at) {
  Decimal found{0, 0, false, true, true};
  if (*at == '-') found.negative = true, at++;
  int count = 0;
  const auto add_digits = [&](int64_t step) {
    for (; is_digit(*at); at++, found.exponent -= step) {
      if (count == kExactDigits) {
        found.exact = false;
      } else {
        found.digits = found.digits * 10 + (*at - '0');
        count += found.digits != 0;
      }
    }
  };
  add_digits(0);
  if (*at == '.') {
    found.integer = false;
    at++;
    add_digits(1);
  }
  if (*at == 'e' || *at == 'E') {
    found.integer = false;
    at++;
    const bool negative = *at == '-';
    if (*at == '-' || *at == '+') at++;
    int64_t exponent = 0;
    for (; is_digit(*at); at++)
      if (exponent < kMostExponent) exponent = exponent * 10 + (*at - '0');
    found.exponent += negative ? -exponent : exponent;
  }
  return found;
}

inline double power_of_two(int64_t exponent) {
  const uint64_t bits = static_cast<uint64_t>(1023 + exponent) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

#if defined(__SIZEOF_INT128__)
// Returns digits * 10^exponent, for an exponent of at most kExactPower either way and digits other
// than 0: product or quotient by a power of five as an integer of 64 bits, of which the lowest says
// whether anything was cut off, so that making it a double rounds as the whole would.
inline double scale_exactly(uint64_t digits, int64_t exponent) {
  using Wide = unsigned __int128;
  uint64_t five = 1;
  for (int64_t power = exponent < 0 ? -exponent : exponent; power > 0; power--) five *= 5;
  Wide wide;
  int64_t shift;
  bool inexact = false;
  if (exponent < 0) {
    const int up = __builtin_clzll(digits), up_five = __builtin_clzll(five);
    const Wide dividend = static_cast<Wide>(digits << up) << 63;
    const uint64_t divisor = five << up_five;
    wide = dividend / divisor;
    inexact = wide * divisor != dividend;
    shift = exponent + up_five - up - 63;
  } else {
    wide = static_cast<Wide>(digits) * five;
    shift = exponent;
    if (const uint64_t high = static_cast<uint64_t>(wide >> 64)) {
      const int down = 64 - __builtin_clzll(high);
      inexact = (wide & ((Wide{1} << down) - 1)) != 0;
      wide >>= down;
      shift += down;
    }
  }
  const uint64_t rounded = static_cast<uint64_t>(wide) | (inexact ? 1 : 0);
  return static_cast<double>(rounded) * power_of_two(shift);
}
#endif

// Reads doubles. The C library's own way, for what is long or far from 1, needs a locale.
class DoubleReader {
 public:
  DoubleReader() : locale_(newlocale(LC_ALL_MASK, "C", nullptr)) {}
  ~DoubleReader() {
    if (locale_) freelocale(locale_);
  }
  DoubleReader(const DoubleReader&) = delete;
  DoubleReader& operator=(const DoubleReader&) = delete;

  bool is_ready() const { return locale_ != nullptr; }

  // Reads a number that is right and followed by a byte that is no part of one; moves `at` behind.
  double read(const uint8_t*& at) const {
    const uint8_t* start = at;
    const Decimal found = read_decimal(at);
    // An integer has no negative zero.
    if (found.digits == 0 && found.exact) return found.negative && !found.integer ? -0.0 : 0.0;
    double size;
    if (!scale(found, size)) return strtod_l(reinterpret_cast<const char*>(start), nullptr, locale_);
    return found.negative ? -size : size;
  }

 private:
  static bool scale(const Decimal& found, double& size) {
    if (!found.exact) return false;
    const int64_t exponent = found.exponent;
    // Where doubles are computed with more bits, a result would be rounded twice.
#if defined(__FLT_EVAL_METHOD__) && __FLT_EVAL_METHOD__ == 0
    if (found.digits <= kExactInteger && -kMostPowerOfTen <= exponent &&
        exponent <= kMostPowerOfTen) {
      size = static_cast<double>(found.digits);
      size = exponent < 0 ? size / kPowersOfTen[-exponent] : size * kPowersOfTen[exponent];
      return true;
    }
#if defined(__SIZEOF_INT128__)
    if (-kExactPower <= exponent && exponent <= kExactPower) {
      size = scale_exactly(found.digits, exponent);
      return true;
    }
#endif
#endif
    return false;
  }

  locale_t locale_;
};

}  // namespace losswire

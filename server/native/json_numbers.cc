// Long arrays of numbers in a JSON text: where they are, and their elements.
//
// What is unusual is not found: then the parser of JSON says what is wrong, or reads it.
#include <math.h>
#include <stdint.h>

#include "decimals.h"

namespace losswire {
namespace {

// The kinds of elements, as bits: arrays of integers, of numbers with texts among them, of bools.
enum ElementKind : int32_t { kNone = 0, kInteger = 1, kReal = 2, kWord = 4, kBool = 8 };

constexpr int kMostAxes = 8;
// A number of so many digits before the point and behind the `e` may be too large for a double.
constexpr int64_t kMostMagnitude = 308;
constexpr uint64_t kLargestInteger = INT64_MAX;

}  // namespace

// An array that was found. `native/binding.py` has the same.
struct JsonArray {
  int64_t start, stop;       // its brackets in the text
  int64_t count;             // its elements
  int64_t shape[kMostAxes];  // of as many axes as `axes` says
  int32_t axes;
  int32_t kind;  // kInteger, kBool, or kReal for all others
};

namespace {

struct Cursor {
  const uint8_t* text;
  int64_t at, size;

  // The next byte; 0, which no JSON has, at the end.
  uint8_t peek() const { return at < size ? text[at] : 0; }

  void skip_blanks() {
    while (at < size) {
      const uint8_t byte = text[at];
      if (byte != ' ' && byte != '\n' && byte != '\t' && byte != '\r') return;
      at++;
    }
  }

  // Moves behind a word, if it is there.
  bool skip(const char* word) {
    const int64_t length = static_cast<int64_t>(strlen(word));
    if (size - at < length || memcmp(text + at, word, static_cast<size_t>(length)) != 0)
      return false;
    at += length;
    return true;
  }

  int64_t skip_digits() {
    const int64_t start = at;
    while (at < size && is_digit(text[at])) at++;
    return at - start;
  }

  // Moves behind a text that begins here, or to the end.
  void skip_text() {
    for (at++; at < size; at++) {
      if (text[at] == '\\') at++;
      else if (text[at] == '"') break;
    }
    at = at < size ? at + 1 : size;
  }

  // Moves behind an array that begins here, whatever is in it, or to the end.
  void skip_array() {
    for (int64_t depth = 0; at < size;) {
      const uint8_t byte = text[at];
      if (byte == '"') {
        skip_text();
        continue;
      }
      at++;
      if (byte == '[' || byte == '{') depth++;
      if ((byte == ']' || byte == '}') && --depth == 0) return;
    }
  }
};

// Moves behind a number and returns its kind: kNone for what is none, and for integers beyond 64
// bits and what may be beyond the largest double.
int32_t skip_number(Cursor& cursor) {
  const bool negative = cursor.peek() == '-';
  if (negative) cursor.at++;
  const int64_t start = cursor.at;
  const int64_t whole = cursor.skip_digits();
  if (whole == 0 || (whole > 1 && cursor.text[start] == '0')) return kNone;
  int32_t kind = kInteger;
  if (cursor.peek() == '.') {
    kind = kReal;
    cursor.at++;
    if (cursor.skip_digits() == 0) return kNone;
  }
  int64_t exponent = 0;
  if (cursor.peek() == 'e' || cursor.peek() == 'E') {
    kind = kReal;
    cursor.at++;
    const bool small = cursor.peek() == '-';
    if (small || cursor.peek() == '+') cursor.at++;
    const int64_t first = cursor.at;
    if (cursor.skip_digits() == 0) return kNone;
    for (int64_t at = first; !small && at < cursor.at && exponent <= kMostMagnitude; at++)
      exponent = exponent * 10 + (cursor.text[at] - '0');
  }
  if (kind == kReal) return whole + exponent <= kMostMagnitude ? kReal : kNone;
  if (whole < kExactDigits) return kInteger;
  if (whole > kExactDigits) return kNone;
  uint64_t number = 0;
  for (int64_t at = start; at < cursor.at; at++) number = number * 10 + (cursor.text[at] - '0');
  return number <= kLargestInteger + (negative ? 1 : 0) ? kInteger : kNone;
}

// Moves behind an element and returns its kind; kNone for what is none.
int32_t skip_element(Cursor& cursor) {
  switch (cursor.peek()) {
    case '"':
      return cursor.skip("\"NaN\"") || cursor.skip("\"Infinity\"") || cursor.skip("\"-Infinity\"")
                 ? kWord
                 : kNone;
    case 't': return cursor.skip("true") ? kBool : kNone;
    case 'f': return cursor.skip("false") ? kBool : kNone;
    default: return skip_number(cursor);
  }
}

// The kind of an array with elements of some kinds; kNone where they do not go together. Words
// alone may be meant as texts.
int32_t kind_of(int32_t kinds) {
  if (kinds == kInteger || kinds == kBool) return kinds;
  return kinds & kBool || kinds == kWord ? kNone : kReal;
}

// Finds the array that begins here and moves behind it; false where it is unusual.
bool find_array(Cursor& cursor, JsonArray& found) {
  int64_t lengths[kMostAxes];
  int depth = 0;
  int32_t kinds = kNone;
  found.start = cursor.at;
  found.axes = 0;
  found.count = 0;
  for (int64_t& each : found.shape) each = 0;
  while (true) {
    cursor.skip_blanks();
    if (cursor.peek() == '[') {
      if (depth == (found.axes ? found.axes : kMostAxes)) return false;
      lengths[depth++] = 0;
      cursor.at++;
      continue;
    }
    if (found.axes == 0) found.axes = depth;
    if (depth != found.axes) return false;
    const int32_t kind = skip_element(cursor);
    if (kind == kNone) return false;
    kinds |= kind;
    found.count++;
    lengths[depth - 1]++;
    while (true) {
      cursor.skip_blanks();
      const uint8_t byte = cursor.peek();
      if (byte != ',' && byte != ']') return false;
      cursor.at++;
      if (byte == ',') break;
      int64_t& length = found.shape[--depth];
      if (length == 0) length = lengths[depth];
      if (length != lengths[depth]) return false;
      if (depth == 0) {
        found.stop = cursor.at;
        found.kind = kind_of(kinds);
        return found.kind != kNone;
      }
      lengths[depth - 1]++;
    }
  }
}

}  // namespace
}  // namespace losswire

// Finds up to `most` arrays of at least `least` elements that are the whole text or lie in objects
// alone, nested at most `deepest` deep with these; returns how many. What is wrong with the text is
// not in them, and never before one of them: it ends there as the parser does.
extern "C" __attribute__((visibility("default")))
int64_t losswire_json_arrays(const uint8_t* text, int64_t size, int64_t least, int64_t deepest,
                             losswire::JsonArray* arrays, int64_t most) {
  losswire::Cursor cursor{text, 0, size};
  int64_t objects = 0, count = 0;
  bool expects_value = true;
  while (cursor.at < size && count < most) {
    switch (text[cursor.at]) {
      case ' ': case '\n': case '\t': case '\r': cursor.skip_blanks(); continue;
      case '[':
        if (expects_value) {
          const int64_t start = cursor.at;
          losswire::JsonArray& found = arrays[count];
          if (losswire::find_array(cursor, found)) {
            if (found.count >= least && objects + found.axes <= deepest) count++;
          } else {
            cursor.at = start;
            cursor.skip_array();
          }
        } else {
          cursor.skip_array();
        }
        break;
      case '"': cursor.skip_text(); break;
      case ':':
        cursor.at++;
        expects_value = objects > 0;
        continue;
      case '{':
        cursor.at++;
        objects++;
        break;
      case '}':
        if (objects-- == 0) return count;
        cursor.at++;
        break;
      default: cursor.at++;
    }
    expects_value = false;
  }
  return count;
}

// Stores the elements of an array that was found: as int64, double or bool, by its kind. Returns
// whether it could.
extern "C" __attribute__((visibility("default")))
int32_t losswire_json_elements(const uint8_t* text, const losswire::JsonArray* array, void* to) {
  const uint8_t* at = text + array->start;
  const uint8_t* const stop = text + array->stop;
  const losswire::DoubleReader reader;
  if (!reader.is_ready()) return 0;
  int64_t* integers = static_cast<int64_t*>(to);
  double* reals = static_cast<double*>(to);
  bool* bools = static_cast<bool*>(to);
  while (at < stop) {
    switch (*at) {
      case '[': case ']': case ',': case ' ': case '\n': case '\t': case '\r': at++; break;
      case 't': *bools++ = true; at += 4; break;
      case 'f': *bools++ = false; at += 5; break;
      case '"': {
        const bool negative = at[1] == '-';
        const double size = at[1] == 'N' ? NAN : INFINITY;
        *reals++ = negative ? -size : size;
        for (at++; *at != '"';) at++;
        at++;
        break;
      }
      default:
        if (array->kind == losswire::kInteger) {
          const losswire::Decimal found = losswire::read_decimal(at);
          const uint64_t bits = found.negative ? 0 - found.digits : found.digits;
          *integers++ = static_cast<int64_t>(bits);
        } else {
          *reals++ = reader.read(at);
        }
    }
  }
  return 1;
}

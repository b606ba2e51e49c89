// How large a protobuf message becomes once it is parsed, estimated from its bytes in one pass.
// `parsed_size.py` does the same in Python where this library is missing.
#include <stdint.h>

namespace losswire {
namespace {

// What a schema says of a field; `parsed_size.py` has the same numbers.
enum FieldKind : int32_t { kUnknownField, kNumber, kVarints, kFixed, kText, kMessage, kMapEntry };

// Bytes of memory that a field takes beside those of the message; `parsed_size.py` has the same.
constexpr int64_t kNumberBytes = 8;
constexpr int64_t kVarintBytes = 16;
constexpr int64_t kTextBytes = 32;
constexpr int64_t kMessageBytes = 128;
constexpr int64_t kMapEntryBytes = 192;

constexpr int kKindBits = 3;
constexpr int64_t kVarintsAtOnce = 4096;

struct Walk {
  const uint8_t* message;
  // By type: where its fields are. There: the highest number, then kind and type of each.
  const int32_t* schema;
  int64_t limit;
  int64_t size;
};

// Reads a number of at most `most` bytes and moves `at` behind it; false where there is none.
bool read_number(const uint8_t* message, int64_t& at, int64_t stop, int most, uint64_t& number) {
  number = 0;
  for (int shift = 0; most > 0 && at < stop; most--, shift += 7) {
    const uint8_t byte = message[at++];
    number |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// Adds the size of packed varints, each of which ends with a byte below 128.
void add_varints(Walk& walk, int64_t at, int64_t stop) {
  while (at < stop && walk.size <= walk.limit) {
    const int64_t end = stop - at < kVarintsAtOnce ? stop : at + kVarintsAtOnce;
    int64_t ends = 0;
    for (; at < end; at++) ends += walk.message[at] < 0x80;
    walk.size += ends * kVarintBytes;
  }
}

// Adds the size of the fields of a message of a type, until it is beyond the limit. Returns where
// the last whole field ends that is within it; `stop` at bytes that protobuf refuses.
int64_t add_fields(Walk& walk, int64_t at, int64_t stop, int32_t type) {
  const int32_t* fields = walk.schema + walk.schema[type];
  const uint64_t highest = static_cast<uint64_t>(fields[0]);
  int64_t groups = 0, whole = at;
  while (at < stop) {
    uint64_t tag, value;
    if (!read_number(walk.message, at, stop, 5, tag)) return stop;
    int64_t end = at;
    switch (tag & 7) {
      case 0:
        if (!read_number(walk.message, end, stop, 10, value)) return stop;
        break;
      case 1: end += 8; break;
      case 2:
        if (!read_number(walk.message, at, stop, 5, value)) return stop;
        end = at + static_cast<int64_t>(value);
        break;
      case 3: groups++; break;
      case 4:
        if (groups-- == 0) return stop;
        break;
      case 5: end += 4; break;
      default: return stop;
    }
    if (end > stop) return stop;
    const uint64_t number = tag >> 3;
    const bool known = groups == 0 && (tag & 7) == 2 && number - 1 < highest;
    const int32_t field = known ? fields[number] : kNumber;
    switch (field & ((1 << kKindBits) - 1)) {
      case kVarints: add_varints(walk, at, end); break;
      case kFixed: break;
      case kText: walk.size += kTextBytes; break;
      case kMessage:
        walk.size += kMessageBytes;
        add_fields(walk, at, end, field >> kKindBits);
        break;
      case kMapEntry:
        walk.size += kMapEntryBytes;
        add_fields(walk, at, end, field >> kKindBits);
        break;
      default: walk.size += kNumberBytes;
    }
    if (walk.size > walk.limit) return whole;
    at = end;
    if (groups == 0) whole = at;
  }
  return stop;
}

}  // namespace
}  // namespace losswire

// Estimates the size of the fields from `start` to `stop`, which are of type number 0 of a schema,
// until it is beyond the limit. Stores in `whole` where the last field ends that is within it.
extern "C" __attribute__((visibility("default")))
int64_t losswire_parsed_size(const uint8_t* message, int64_t start, int64_t stop,
                             const int32_t* schema, int64_t limit, int64_t* whole) {
  losswire::Walk walk{message, schema, limit, 0};
  *whole = losswire::add_fields(walk, start, stop, 0);
  return walk.size;
}

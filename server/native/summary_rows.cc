// Reductions of the row losses of a summary by group, each row read once.
// `losswire.summaries` says what they are and computes them by numpy where this library is missing.
#include <stdint.h>
#include <string.h>

#include "calls.h"

namespace losswire {

struct SummaryRows {
  int64_t rows;
  const double* values;    // finite; for indices positive, too
  const int64_t* group;    // the group of each row
  const double* origin;    // of each group: what moments are measured from
  double* counts;          // of each group, added to: rows,
  double* sums;            // values,
  double* first;           // values - origin
  double* second;          // and their squares
  double* minimum;         // of each group, lowered and raised
  double* maximum;
  int64_t* indices;        // of each row: its bucket
  double* weights;         // buckets of all groups, added to
  int64_t stride;          // buckets of a group
  int64_t first_index;     // the index of the first of them
  const int64_t* below;    // by cell of the mantissa: bounds below it, less what indices begin with
  const int64_t* bound;    // and the bound inside of it
  int32_t scale;           // of the indices, greater than 0
  int32_t shift;           // the bits of a mantissa behind those that number its cell
};

namespace {

constexpr int kMantissaBits = 52;
constexpr int64_t kMantissa = (int64_t{1} << kMantissaBits) - 1;

int64_t index_of(const SummaryRows& call, double value) {
  int64_t bits;
  memcpy(&bits, &value, sizeof bits);
  int64_t exponent = bits >> kMantissaBits;
  if (exponent == 0) {  // subnormal
    value *= 4503599627370496.0;  // 2^52
    memcpy(&bits, &value, sizeof bits);
    exponent = (bits >> kMantissaBits) - kMantissaBits;
  }
  const int64_t mantissa = bits & kMantissa;
  const int64_t cell = mantissa >> call.shift;
  return (exponent * (int64_t{1} << call.scale)) + call.below[cell] + (mantissa > call.bound[cell]);
}

}  // namespace
}  // namespace losswire

using losswire::SummaryRows;

// Finds the bucket of each row.
extern "C" __attribute__((visibility("default")))
int32_t losswire_summary_indices(SummaryRows* call) {
  for (int64_t row = 0; row < call->rows; row++)
    call->indices[row] = losswire::index_of(*call, call->values[row]);
  return losswire::kDone;
}

// Counts and adds up the rows of each group.
extern "C" __attribute__((visibility("default")))
int32_t losswire_summary_sums(SummaryRows* call) {
  for (int64_t row = 0; row < call->rows; row++) {
    const int64_t group = call->group[row];
    call->counts[group] += 1;
    call->sums[group] += call->values[row];
  }
  return losswire::kDone;
}

// Adds up the distances from the origin and their squares, and finds the extremes.
extern "C" __attribute__((visibility("default")))
int32_t losswire_summary_moments(SummaryRows* call) {
  for (int64_t row = 0; row < call->rows; row++) {
    const int64_t group = call->group[row];
    const double value = call->values[row];
    const double distance = value - call->origin[group];
    call->first[group] += distance;
    call->second[group] += distance * distance;
    if (value < call->minimum[group]) call->minimum[group] = value;
    if (value > call->maximum[group]) call->maximum[group] = value;
  }
  return losswire::kDone;
}

// Adds 1 to the bucket of each row, in the buckets of its group.
extern "C" __attribute__((visibility("default")))
int32_t losswire_summary_count(SummaryRows* call) {
  for (int64_t row = 0; row < call->rows; row++) {
    const int64_t at = call->group[row] * call->stride + call->indices[row] - call->first_index;
    call->weights[at] += 1;
  }
  return losswire::kDone;
}

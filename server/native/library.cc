// All of the library, compiled as one.
#include "softmax_rows.cc"
#include "softmax_message.cc"
#include "elements.cc"
#include "elements_message.cc"
#include "summary_rows.cc"
#include "fields.cc"
#include "json_numbers.cc"
#include "layout.cc"

#include "messages.h"

#include "google/rpc/error_details.pb.h"

Facts facts(const google::rpc::Status& status) {
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest request;
  for (const auto& detail : status.details()) {
    detail.UnpackTo(&info);
    detail.UnpackTo(&request);
  }
  std::set<std::string> fields;
  for (const auto& violation : request.field_violations()) fields.insert(violation.field());
  return {status.code(), info.domain(), info.reason(), fields};
}

Facts facts(const losswire::v1::Status& status) {
  std::set<std::string> fields;
  for (const auto& violation : status.violations()) fields.insert(violation.field());
  return {status.code(), "", status.reason(), fields};
}

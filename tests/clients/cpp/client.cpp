// A client in C++: what docs/clients.md shows, run by tests/test_clients.py.

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "pointsman/v1/router_service.grpc.pb.h"

namespace pb = pointsman::v1;
using namespace std::chrono_literals;

// Both calls can be sent again, since their ids make them count once.
constexpr char kRetries[] = R"({"methodConfig": [{
  "name": [{"service": "pointsman.v1.RouterService", "method": "Route"},
           {"service": "pointsman.v1.RouterService", "method": "ReportReward"}],
  "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
                  "retryableStatusCodes": ["UNAVAILABLE"]}}]})";

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) throw std::runtime_error(std::string(name) + " is not set");
  return value;
}

std::string Read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + " cannot be read");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::unique_ptr<pb::RouterService::Stub> Connect() {
  grpc::SslCredentialsOptions trust;
  trust.pem_root_certs = Read(Variable("POINTSMAN_CA"));
  grpc::ChannelArguments arguments;
  arguments.SetServiceConfigJSON(kRetries);
  return pb::RouterService::NewStub(
      grpc::CreateCustomChannel(Variable("POINTSMAN_TARGET"), grpc::SslCredentials(trust), arguments));
}

// Of one call: its deadline, and the key.
template <typename Duration>
void Prepare(grpc::ClientContext& context, Duration limit) {
  context.set_deadline(std::chrono::system_clock::now() + limit);
  context.AddMetadata("authorization", "Bearer " + Variable("POINTSMAN_API_KEY"));
}

void Must(const grpc::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.error_message());
}

pb::RouteResponse Route(pb::RouterService::Stub& pointsman, const pb::RouteRequest& query) {
  grpc::ClientContext context;
  Prepare(context, 20s);
  pb::RouteResponse decision;
  Must(pointsman.Route(&context, query, &decision));
  return decision;
}

grpc::Status Report(pb::RouterService::Stub& pointsman, const pb::ReportRewardRequest& report,
                    pb::ReportRewardResponse* answer) {
  grpc::ClientContext context;
  Prepare(context, 20s);
  return pointsman.ReportReward(&context, report, answer);
}

std::string Quoted(const std::string& text) { return "\"" + text + "\""; }

// The code, the reason of the ErrorInfo, and the first field of the BadRequest.
std::string Explain(const grpc::Status& refusal) {
  google::rpc::Status status;
  status.ParseFromString(refusal.error_details());
  google::rpc::ErrorInfo info;
  google::rpc::BadRequest bad;
  for (const auto& detail : status.details()) {
    if (detail.Is<google::rpc::ErrorInfo>()) detail.UnpackTo(&info);
    if (detail.Is<google::rpc::BadRequest>()) detail.UnpackTo(&bad);
  }
  const bool invalid = refusal.error_code() == grpc::StatusCode::INVALID_ARGUMENT;
  return "{\"code\": " + Quoted(invalid ? "INVALID_ARGUMENT" : std::to_string(refusal.error_code())) +
         ", \"reason\": " + Quoted(info.reason()) + ", \"field\": " + Quoted(bad.field_violations(0).field()) + "}";
}

int main() {
  const auto pointsman = Connect();

  pb::RouteRequest query;
  query.set_prompt("What is the capital of France?");
  query.set_request_id("order-4711");
  const auto decision = Route(*pointsman, query);
  const auto again = Route(*pointsman, query);

  // ... call decision.model(), look at the answer, and report what is known:
  pb::ReportRewardRequest report;
  report.set_decision_id(decision.decision_id());
  report.set_report_id("order-4711-judge");
  report.set_reward(0.9);
  report.mutable_usage()->set_input_tokens(8);
  report.mutable_usage()->set_output_tokens(12);
  pb::ReportRewardResponse first, second;
  Must(Report(*pointsman, report, &first));
  Must(Report(*pointsman, report, &second));

  pb::ReportRewardRequest too_good;
  too_good.set_decision_id(decision.decision_id());
  too_good.set_reward(1.5);
  pb::ReportRewardResponse none;
  const auto refusal = Report(*pointsman, too_good, &none);

  grpc::ClientContext hurried;
  Prepare(hurried, 0s);
  pb::RouteResponse never;
  const auto late = pointsman->Route(&hurried, query, &never);

  std::string fallbacks;
  for (const auto& model : decision.fallback_models()) {
    fallbacks += (fallbacks.empty() ? "" : ", ") + Quoted(model);
  }
  std::cout << "{\"decision_id\": " << Quoted(decision.decision_id())
            << ", \"same_decision\": " << (again.decision_id() == decision.decision_id() ? "true" : "false")
            << ", \"model\": " << Quoted(decision.model()) << ", \"fallbacks\": [" << fallbacks << "]"
            << ", \"dispositions\": [" << Quoted(pb::Disposition_Name(first.disposition())) << ", "
            << Quoted(pb::Disposition_Name(second.disposition())) << "], \"refusal\": " << Explain(refusal)
            << ", \"deadline\": "
            << Quoted(late.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ? "DEADLINE_EXCEEDED" : "none")
            << "}" << std::endl;
}

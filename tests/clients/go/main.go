// A client in Go: what docs/clients.md shows, run by tests/test_clients.py.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "example.com/pointsman-client/pointsmanv1"
)

// Both calls can be sent again, since their ids make them count once.
const retries = `{"methodConfig": [{
	"name": [{"service": "pointsman.v1.RouterService", "method": "Route"},
	         {"service": "pointsman.v1.RouterService", "method": "ReportReward"}],
	"retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
	                "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func main() {
	trust, err := credentials.NewClientTLSFromFile(os.Getenv("POINTSMAN_CA"), "")
	must(err)
	connection, err := grpc.NewClient(os.Getenv("POINTSMAN_TARGET"),
		grpc.WithTransportCredentials(trust),
		grpc.WithUnaryInterceptor(withKey(os.Getenv("POINTSMAN_API_KEY"))),
		grpc.WithDefaultServiceConfig(retries))
	must(err)
	defer connection.Close()
	pointsman := pb.NewRouterServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	query := &pb.RouteRequest{Prompt: "What is the capital of France?", RequestId: "order-4711"}
	decision, err := pointsman.Route(ctx, query)
	must(err)
	again, err := pointsman.Route(ctx, query)
	must(err)

	// ... call decision.Model, look at the answer, and report what is known:
	reward := 0.9
	report := &pb.ReportRewardRequest{
		DecisionId: decision.DecisionId,
		ReportId:   "order-4711-judge",
		Reward:     &reward,
		Usage:      &pb.Usage{InputTokens: 8, OutputTokens: 12},
	}
	first, err := pointsman.ReportReward(ctx, report)
	must(err)
	second, err := pointsman.ReportReward(ctx, report)
	must(err)

	tooGood := 1.5
	_, refusal := pointsman.ReportReward(ctx, &pb.ReportRewardRequest{DecisionId: decision.DecisionId, Reward: &tooGood})
	reason, field := explain(refusal)

	hurried, stop := context.WithTimeout(ctx, time.Nanosecond)
	defer stop()
	_, late := pointsman.Route(hurried, &pb.RouteRequest{Prompt: "too late"})

	must(json.NewEncoder(os.Stdout).Encode(map[string]any{
		"decision_id":   decision.DecisionId,
		"same_decision": again.DecisionId == decision.DecisionId,
		"model":         decision.Model,
		"fallbacks":     decision.FallbackModels,
		"dispositions":  []string{first.Disposition.String(), second.Disposition.String()},
		"refusal":       map[string]string{"code": status.Code(refusal).String(), "reason": reason, "field": field},
		"deadline":      status.Code(late).String(),
	}))
}

// withKey shows the key with every call.
func withKey(key string) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
		return invoke(ctx, method, request, reply, connection, options...)
	}
}

// explain gives the reason of the ErrorInfo, and the first field of the BadRequest.
func explain(refusal error) (reason, field string) {
	for _, detail := range status.Convert(refusal).Details() {
		switch each := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = each.Reason
		case *errdetails.BadRequest:
			field = each.FieldViolations[0].Field
		}
	}
	return reason, field
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

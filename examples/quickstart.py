"""Both calls: ask for a model, then say what came of it. Needs a server: scripts/serve."""

import grpc
from pointsman.v1 import router_service_pb2 as pb
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub

with grpc.insecure_channel("127.0.0.1:50051") as channel:
    pointsman = RouterServiceStub(channel)

    decision = pointsman.Route(
        pb.RouteRequest(prompt="What is the capital of France?", request_id="order-4711"), timeout=2
    )
    print("call", decision.model, "or, if it fails,", list(decision.fallback_models))

    # ... call the model, look at the answer, and report what you know, now or days later:

    report = pb.ReportRewardRequest(
        decision_id=decision.decision_id,
        report_id="order-4711-judge",
        reward=0.9,
        usage=pb.Usage(input_tokens=8, output_tokens=12),
    )
    print(pb.Disposition.Name(pointsman.ReportReward(report, timeout=2).disposition))

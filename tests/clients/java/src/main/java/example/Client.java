package example;

import com.google.gson.Gson;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.ClientInterceptor;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import pointsman.v1.RouterServiceGrpc;
import pointsman.v1.RouterServiceGrpc.RouterServiceBlockingStub;
import pointsman.v1.RouterServiceOuterClass.ReportRewardRequest;
import pointsman.v1.RouterServiceOuterClass.RouteRequest;
import pointsman.v1.RouterServiceOuterClass.RouteResponse;
import pointsman.v1.RouterServiceOuterClass.Usage;

/** A client in Java: what docs/clients.md shows, run by tests/test_clients.py. */
public final class Client {
  /** Both calls can be sent again, since their ids make them count once. */
  private static final Map<String, ?> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(
                      Map.of("service", "pointsman.v1.RouterService", "method", "Route"),
                      Map.of("service", "pointsman.v1.RouterService", "method", "ReportReward")),
                  "retryPolicy",
                  Map.of(
                      "maxAttempts", 5.0,
                      "initialBackoff", "0.05s",
                      "maxBackoff", "1s",
                      "backoffMultiplier", 2.0,
                      "retryableStatusCodes", List.of("UNAVAILABLE")))));

  public static void main(String[] arguments) throws IOException {
    var trust = TlsChannelCredentials.newBuilder().trustManager(new File(System.getenv("POINTSMAN_CA"))).build();
    ManagedChannel channel =
        Grpc.newChannelBuilder(System.getenv("POINTSMAN_TARGET"), trust)
            .defaultServiceConfig(RETRIES)
            .enableRetry()
            .intercept(withKey(System.getenv("POINTSMAN_API_KEY")))
            .build();
    try {
      System.out.println(new Gson().toJson(use(RouterServiceGrpc.newBlockingStub(channel))));
    } finally {
      channel.shutdownNow();
    }
  }

  private static Map<String, ?> use(RouterServiceBlockingStub pointsman) {
    RouteRequest query =
        RouteRequest.newBuilder().setPrompt("What is the capital of France?").setRequestId("order-4711").build();
    RouteResponse decision = patient(pointsman).route(query);
    RouteResponse again = patient(pointsman).route(query);

    // ... call decision.getModel(), look at the answer, and report what is known:
    ReportRewardRequest report =
        ReportRewardRequest.newBuilder()
            .setDecisionId(decision.getDecisionId())
            .setReportId("order-4711-judge")
            .setReward(0.9)
            .setUsage(Usage.newBuilder().setInputTokens(8).setOutputTokens(12))
            .build();
    var first = patient(pointsman).reportReward(report);
    var second = patient(pointsman).reportReward(report);

    var tooGood = ReportRewardRequest.newBuilder().setDecisionId(decision.getDecisionId()).setReward(1.5).build();
    StatusRuntimeException refusal = failure(() -> patient(pointsman).reportReward(tooGood));
    StatusRuntimeException late =
        failure(() -> pointsman.withDeadlineAfter(1, TimeUnit.NANOSECONDS).route(query));

    return Map.of(
        "decision_id", decision.getDecisionId(),
        "same_decision", again.getDecisionId().equals(decision.getDecisionId()),
        "model", decision.getModel(),
        "fallbacks", List.copyOf(decision.getFallbackModelsList()),
        "dispositions", List.of(first.getDisposition().name(), second.getDisposition().name()),
        "refusal", explain(refusal),
        "deadline", late.getStatus().getCode().name());
  }

  private static RouterServiceBlockingStub patient(RouterServiceBlockingStub pointsman) {
    return pointsman.withDeadlineAfter(20, TimeUnit.SECONDS);
  }

  private static ClientInterceptor withKey(String key) {
    var metadata = new Metadata();
    metadata.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + key);
    return MetadataUtils.newAttachHeadersInterceptor(metadata);
  }

  /** The code, the reason of the ErrorInfo, and the first field of the BadRequest. */
  private static Map<String, String> explain(StatusRuntimeException refusal) {
    String reason = "";
    String field = "";
    try {
      for (var detail : StatusProto.fromThrowable(refusal).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          reason = detail.unpack(ErrorInfo.class).getReason();
        } else if (detail.is(BadRequest.class)) {
          field = detail.unpack(BadRequest.class).getFieldViolations(0).getField();
        }
      }
    } catch (com.google.protobuf.InvalidProtocolBufferException error) {
      throw new IllegalStateException(error);
    }
    return Map.of("code", refusal.getStatus().getCode().name(), "reason", reason, "field", field);
  }

  private static StatusRuntimeException failure(Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      return error;
    }
    throw new IllegalStateException("the call did not fail");
  }
}

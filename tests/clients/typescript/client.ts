// A client in TypeScript: what docs/clients.md shows, run by tests/test_clients.py.
import { readFileSync } from "node:fs";
import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { Disposition, ReportRewardRequestSchema, RouterService } from "./gen/pointsman/v1/router_service_pb.js";

const withKey: Interceptor = (next) => (request) => {
  request.header.set("authorization", `Bearer ${process.env.POINTSMAN_API_KEY}`);
  return next(request);
};

// Both calls can be sent again, since their ids make them count once.
const withRetries: Interceptor = (next) => async (request) => {
  for (let attempt = 1; ; attempt++) {
    try {
      return await next(request);
    } catch (error) {
      if (ConnectError.from(error).code !== Code.Unavailable || attempt === 5) throw error;
      await new Promise((wake) => setTimeout(wake, 50 * 2 ** attempt * Math.random()));
    }
  }
};

const pointsman = createClient(
  RouterService,
  createGrpcTransport({
    baseUrl: `https://${process.env.POINTSMAN_TARGET}`,
    nodeOptions: { ca: readFileSync(process.env.POINTSMAN_CA!) },
    interceptors: [withRetries, withKey],
    defaultTimeoutMs: 20_000,
  }),
);

const query = { prompt: "What is the capital of France?", requestId: "order-4711" };
const decision = await pointsman.route(query);
const again = await pointsman.route(query);

// ... call decision.model, look at the answer, and report what is known:
const report = create(ReportRewardRequestSchema, {
  decisionId: decision.decisionId,
  reportId: "order-4711-judge",
  reward: 0.9,
  usage: { inputTokens: 8n, outputTokens: 12n },
});
const first = await pointsman.reportReward(report);
const second = await pointsman.reportReward(report);

const refusal = await failure(pointsman.reportReward({ decisionId: decision.decisionId, reward: 1.5 }));
const late = await failure(pointsman.route({ prompt: "too late ".repeat(50_000) }, { timeoutMs: 1 }));

console.log(
  JSON.stringify({
    decision_id: decision.decisionId,
    same_decision: again.decisionId === decision.decisionId,
    model: decision.model,
    fallbacks: decision.fallbackModels,
    dispositions: [first, second].map((answer) => `DISPOSITION_${Disposition[answer.disposition]}`),
    refusal: {
      code: Code[refusal.code],
      reason: refusal.findDetails(ErrorInfoSchema)[0].reason,
      field: refusal.findDetails(BadRequestSchema)[0].fieldViolations[0].field,
    },
    deadline: Code[late.code],
  }),
);

async function failure(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("the call did not fail");
}

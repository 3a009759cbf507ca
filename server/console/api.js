// Calls the server: the same JSON over HTTP as everyone's, with the same keys.

const KEY = "pointsman.key";
const TIMEOUT_MS = 20000;

/** An answer that is none. `code` is the canonical one in lower case, `status` the HTTP status, 0 if it never came. */
export class CallError extends Error {
  constructor(message, code, status, details = []) {
    super(message);
    this.code = code;
    this.status = status;
    this.reason = details.map((each) => each.debug?.reason).find(Boolean) ?? "";
    this.metadata = details.map((each) => each.debug?.metadata).find(Boolean) ?? {};
    this.violations = details.flatMap((each) => each.debug?.fieldViolations ?? []);
  }
}

/** The key of this tab, "" without one. It is gone with the tab. */
export function currentKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function rememberKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

const registry = (method) => (request) => call(`pointsman.v1.RegistryService/${method}`, request);
const policies = (method) => (request) => call(`pointsman.v1.PolicyService/${method}`, request);

export const listRouters = () => all(registry("ListRouters"), {}, "routers");
export const getRouter = registry("GetRouter");
export const getHistory = registry("GetHistory");
export const listModels = (parent) => all(registry("ListModels"), { parent }, "models");
export const createModel = registry("CreateModel");
export const updateModel = registry("UpdateModel");
export const deleteModel = registry("DeleteModel");
export const createRouter = registry("CreateRouter");
export const updateRouter = registry("UpdateRouter");
export const deleteRouter = registry("DeleteRouter");
export const getEvaluation = policies("GetEvaluation");
export const listPolicies = (parent) => all(policies("ListPolicies"), { parent }, "policies");
export const listTransitions = (parent) => all(policies("ListTransitions"), { parent }, "transitions");
export const listSnapshots = (parent) => all(policies("ListSnapshots"), { parent }, "snapshots");
export const createPolicy = policies("CreatePolicy");
export const promotePolicy = policies("PromotePolicy");
export const retirePolicy = policies("RetirePolicy");
export const getPromotionSettings = policies("GetPromotionSettings");
export const updatePromotionSettings = policies("UpdatePromotionSettings");
export const restoreSnapshot = policies("RestoreSnapshot");
export const getDecision = (decisionId) => call("pointsman.v1.RouterService/GetDecision", { decisionId });
export const checkHealth = (service) => call("grpc.health.v1.Health/Check", { service });

async function all(list, request, field) {
  const found = [];
  let pageToken = "";
  do {
    const page = await list({ ...request, pageSize: 1000, pageToken });
    found.push(...(page[field] ?? []));
    pageToken = page.nextPageToken ?? "";
  } while (pageToken);
  return found;
}

async function call(path, request) {
  const headers = { "content-type": "application/json", "connect-timeout-ms": String(TIMEOUT_MS) };
  const key = currentKey();
  if (key) headers.authorization = `Bearer ${key}`;
  let answer;
  let body;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers,
      body: JSON.stringify(request),
      signal: AbortSignal.timeout(TIMEOUT_MS + 2000),
    });
    body = await answer.json();
  } catch {
    throw new CallError("the server does not answer", "unavailable", 0);
  }
  if (!answer.ok) throw new CallError(body.message ?? "", body.code ?? "unknown", answer.status, body.details);
  return body;
}

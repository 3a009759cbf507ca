// What to do next, as long as there is nothing to show.

import { currentKey } from "./api.js";
import { h } from "./dom.js";
import { number } from "./format.js";
import { command } from "./parts.js";

/** The next step of a router that has yet to learn anything; null once it has. */
export function nextStep(router, models, decisionId) {
  if (!models.length) {
    return step(
      "Add a model",
      "This router has no models yet. Add those that you call today, with the prices that you pay:",
      curl("RegistryService/CreateModel", {
        parent: router.name,
        modelId: "small",
        model: { prices: { inputUsdPerMillionTokens: 0.1, outputUsdPerMillionTokens: 0.4 } },
      }),
      h("div", { class: "buttons start" },
        h("button", { type: "button", "data-action": "add-model" }, "Add a model"),
        h("button", { type: "button", class: "quiet", "data-action": "add-router" }, "Create another router")),
    );
  }
  if (!number(router.statistics?.decisionCount)) {
    return step(
      "Ask for the first decision",
      "Before each model call, ask which model to call. The answer names it:",
      curl("RouterService/Route", { router: router.name, prompt: "What is the capital of France?" }),
    );
  }
  if (!number(router.statistics?.rewardCount)) {
    return step(
      "Report the first reward",
      "After the call, say how good the answer was, from 0 to 1, and what it used. DECISION is the decisionId that the answer to Route gave:",
      curl("RouterService/ReportReward", {
        decisionId: decisionId ?? "DECISION",
        reward: 0.9,
        usage: { inputTokens: 8, outputTokens: 12 },
      }),
    );
  }
  return null;
}

/** What there is where no router is, or none that the key may touch. */
export function noRouter() {
  return [
    step(
      "Create a router",
      "There is no router that this key may touch. If it is for one that does not exist yet, create that:",
      curl("RegistryService/CreateRouter", { routerId: "support", router: {} }),
      h("button", { type: "button", "data-action": "add-router" }, "Create a router"),
    ),
  ];
}

function step(title, about, text, more = null) {
  return h(
    "section",
    { class: "card next", "data-key": "next", "aria-labelledby": "next-title" },
    h("h2", { id: "next-title" }, `Next: ${title.toLowerCase()}`),
    h("p", {}, about),
    command(text),
    more,
  );
}

function curl(method, body) {
  const key = currentKey() ? ' -H "authorization: Bearer $POINTSMAN_KEY"' : "";
  return `curl -s${key} --json '${JSON.stringify(body)}' ${location.origin}/pointsman.v1.${method}`;
}

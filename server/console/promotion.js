// What can be done with candidates and snapshots: created, promoted, taken back, retired, restored.

import { createPolicy, promotePolicy, restoreSnapshot, retirePolicy } from "./api.js";
import { h } from "./dom.js";
import { choice, decimal, field, openForm, optional, record, tick } from "./forms.js";
import { count, idOf, qualityText, rangeText, time, words } from "./format.js";
import { badge } from "./parts.js";

const [SHADOW, CANARY, LIVE] = ["POLICY_STATE_SHADOW", "POLICY_STATE_CANARY", "POLICY_STATE_LIVE"];
const FORMER = "previous-";
const VERDICTS = {
  VERDICT_OUTCOME_PASSED: ["✓ passes", "good"],
  VERDICT_OUTCOME_FAILED: ["! fails", "warn"],
  VERDICT_OUTCOME_UNDECIDED: ["undecided", ""],
  VERDICT_OUTCOME_REFUSED: ["cannot be told", ""],
};
// Where the gate says no, or there is nothing to judge by: then one can go without, on record.
const FORCEABLE = new Set(["NOT_PROMOTABLE", "EVALUATION_UNAVAILABLE"]);

/** Whether a policy was the router's own before another was promoted. */
export function isFormer(policy) {
  return idOf(policy.name).startsWith(FORMER);
}

/** What a candidate came to, in a word. */
export function verdictBadge(evaluated) {
  return badge(...(VERDICTS[evaluated?.verdict?.outcome] ?? ["not evaluated yet", ""]));
}

/** By how much the candidate's utility is higher, at all times at once: what the gate goes by. */
export function gain(evaluated) {
  const found = evaluated?.sequences?.find((each) => each.metric === "METRIC_UTILITY" && (each.timesLive ?? 0) === 1);
  const { low, high } = found?.interval ?? {};
  return low === undefined ? null : rangeText(low, high, (value) => qualityText(value, true));
}

/** What is known of the candidate, as the form shows it before anybody decides. */
function known(evaluated) {
  const sure = gain(evaluated);
  const reasons = evaluated?.verdict?.reasons ?? [];
  return h("div", { class: "evidence" },
    h("p", {}, verdictBadge(evaluated), " on ", count(evaluated?.support?.eventCount ?? 0), " decisions",
      sure && `; gain in utility ${sure}, at all times at once`),
    reasons.length > 0 && h("details", { class: "about" }, h("summary", {}, "why"), h("ul", {}, reasons.map((each) => h("li", {}, each)))));
}

/** Opens the form that takes a candidate to its next state. */
export function promote(dialog, policy, evaluated, done) {
  const id = idOf(policy.name);
  const serves = policy.state === CANARY;
  const next = serves || isFormer(policy) ? LIVE : CANARY;
  openForm(dialog, {
    title: isFormer(policy) ? `Go back to ${id}` : `Promote ${id}`,
    about: [known(evaluated)],
    fields: [
      choice("promote", "state", "To", [
        [CANARY, serves ? "canary, with another share" : "canary: it decides a share of the requests"],
        [LIVE, "live: it becomes the router's own policy"],
        ...(serves ? [[SHADOW, "back to shadow: it decides nothing"]] : []),
      ], next),
      h("div", { class: "pair" },
        field("promote", "canaryShare", "Canary: its share, in %", { inputmode: "decimal", value: 10 }),
        field("promote", "holdbackShare", "Live: what the former keeps, in %", { inputmode: "decimal", value: 0 })),
      h("p", { class: "about" }, "More traffic is given only to a candidate that passes. A policy that goes live leaves the one before it as a candidate; where that keeps a share and turns out to be better, the router goes back by itself."),
      record("promote"),
    ],
    submit: isFormer(policy) ? "Go back" : "Promote",
    send: (text) => promotePolicy({
      name: policy.name,
      etag: policy.etag,
      state: text("state"),
      canaryShare: text("state") === CANARY ? decimal(text("canaryShare"), 0.01) : 0,
      holdbackShare: text("state") === LIVE ? optional(text("holdbackShare"), 0.01) : 0,
      force: text("force") === "on",
      reason: text("reason"),
      actor: text("actor"),
    }),
    done,
    refused: (failure) => FORCEABLE.has(failure.reason)
      && tick("promote", "force", "Do it whatever the verdict is. It is kept on record as forced, with why."),
  });
}

/** Asks before a canary's share of the traffic is taken away. */
export function takeBack(dialog, policy, done) {
  openForm(dialog, {
    title: `Take ${idOf(policy.name)} back to shadow?`,
    about: ["From the next decision on it decides nothing. It stays a candidate, and goes on being evaluated."],
    fields: [record("promote")],
    submit: "Take back",
    danger: true,
    send: (text) => promotePolicy({ name: policy.name, etag: policy.etag, state: SHADOW, reason: text("reason"), actor: text("actor") }),
    done,
  });
}

/** Asks before a candidate is retired. */
export function retire(dialog, policy, done) {
  openForm(dialog, {
    title: `Retire ${idOf(policy.name)}?`,
    about: [
      `Its evaluation ends${policy.state === CANARY ? ", and so does its share of the traffic" : ""}. It cannot be taken up again, nor its name: what is in the log under a name is one policy's.`,
      isFormer(policy) && "It is what the router would go back to by itself.",
    ].filter(Boolean),
    fields: [record("retire")],
    submit: "Retire",
    danger: true,
    send: (text) => retirePolicy({ name: policy.name, etag: policy.etag, reason: text("reason"), actor: text("actor") }),
    done,
  });
}

/** Opens the form for a new candidate, in shadow. */
export function createCandidate(dialog, router, models, done) {
  const options = [
    ["learned", "learned, with its own learner"], ["greedy", "greedy: learned, without exploring"], ["uniform", "uniform: all models alike"],
    ["cheapest", "always the cheapest"], ["dearest", "always the dearest"], ["incumbent", "what callers name as their incumbent"],
    ...models.map((each) => [`fixed:${each.id}`, `always ${each.id}`]),
  ];
  openForm(dialog, {
    title: "Create a candidate",
    about: ["It answers each decision in shadow, and decides nothing until it is promoted. Rules, thresholds and hidden features: pointsman policies create --help."],
    fields: [
      field("candidate", "policyId", "Id", { required: true, maxlength: 63, placeholder: "thrifty" }),
      choice("candidate", "policy", "What decides", options, "learned"),
      h("div", { class: "pair" },
        field("candidate", "maxUtilityLoss", "What exploring may give up, if other than the router's", { inputmode: "decimal" }),
        field("candidate", "qualityValueUsd", "What quality is worth, in USD, if other", { inputmode: "decimal" })),
      field("candidate", "actor", "Who asks, for the record", { maxlength: 256, placeholder: "this address" }),
    ],
    submit: "Create",
    send: (text) => createPolicy({ parent: router.name, policyId: text("policyId"), policy: candidateOf(text), actor: text("actor") }),
    done,
  });
}

function candidateOf(text) {
  const [maxUtilityLoss, qualityValueUsd] = [optional(text("maxUtilityLoss")), optional(text("qualityValueUsd"))];
  return {
    policy: text("policy"),
    ...(maxUtilityLoss !== undefined && { exploration: { maxUtilityLoss } }),
    ...(qualityValueUsd !== undefined && { objective: { qualityValueUsd } }),
  };
}

/** Asks before the learner goes back to a snapshot. */
export function restore(dialog, router, snapshot, done) {
  openForm(dialog, {
    title: "Go back to this snapshot?",
    about: [
      h("p", {}, "Of quality, cost and latency the learner knows what it knew ", snapshot.source ? `in ${snapshot.source}` : time(snapshot.createTime), "; what it learned since is left out for good."),
      "With one of the router's own, its policy, learner, exploration and objective are those of then, too. Money that was spent stays spent.",
    ],
    fields: [record("restore")],
    submit: "Go back",
    danger: true,
    send: (text) => restoreSnapshot({ name: snapshot.name, etag: router.etag, reason: text("reason"), actor: text("actor") }),
    done,
  });
}

/** What a candidate is, in a few words. */
export function formOf(policy) {
  const { threshold: t, rules = [] } = policy;
  const decides = t ? `${t.strong} where it is better than ${t.weak} by ${t.gap ?? 0}` : policy.policy || "learned";
  const own = [
    rules.length > 0 && `${rules.length} rule${rules.length > 1 ? "s" : ""} first`,
    policy.learner && policy.learner !== "LEARNER_UNSPECIFIED" && words(policy.learner, "LEARNER_"),
    policy.objective && "an objective of its own",
    policy.exploration && "an exploration of its own",
    policy.featureParts?.length && `sees ${policy.featureParts.map((each) => words(each, "FEATURE_PART_")).join(", ")}`,
  ].filter(Boolean);
  return [decides, ...own].join("; ");
}

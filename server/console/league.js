// The candidates of a router against its live policy, and what has been done with them on which evidence.

import { h } from "./dom.js";
import { estimatesOf } from "./facts.js";
import { count, datum, idOf, number, percentText, qualityText, rangeText, significant, time, usdText, words } from "./format.js";
import { heading } from "./overview.js";
import { badge, command, table, whisker } from "./parts.js";
import { formOf, gain, isFormer, verdictBadge } from "./promotion.js";

const LIVE = "POLICY_STATE_LIVE";
const PASSED = "VERDICT_OUTCOME_PASSED";
const SNAPSHOTS = 8;
const STATES = { POLICY_STATE_LIVE: "good", POLICY_STATE_CANARY: "good" };
const signed = (value) => qualityText(value, true);
const SIGNED = { UTILITY: signed, QUALITY: signed, COST_USD: (value) => (value > 0 ? "+" : "") + usdText(value) };

/** The nodes of the view. `data` has router, evaluation (or null), evaluationError, policies, transitions, snapshots. */
export function league(data) {
  return [
    heading(data.router), warnings(data.evaluation), candidates(data), standings(data), path(data), snapshots(data),
  ].filter(Boolean);
}

/** Those that are not retired, each with where it stands on its way to the traffic and what can be done with it. */
function candidates({ policies, evaluation, router }) {
  const shown = policies.filter((each) => each.state !== "POLICY_STATE_RETIRED");
  const none = shown.every((each) => each.state === LIVE);
  return h(
    "section",
    { class: "card", "data-key": "candidates" },
    h("div", { class: "card-head" },
      h("h2", {}, "Candidates"), h("button", { type: "button", "data-action": "add-candidate" }, "Create a candidate")),
    none && h("p", { class: "about" },
      "There is none yet. A candidate in shadow answers each decision beside the live policy, costs nothing, and is promoted once it is known to be better. By the command line:"),
    none && command(`pointsman policies --router ${idOf(router.name)} create greedy greedy`),
    shown.length > 0 && h("ul", { class: "candidates" }, shown.map((each) => candidate(each, evaluation))),
  );
}

function candidate(policy, evaluation) {
  const id = idOf(policy.name);
  const evaluated = evaluation?.candidates?.find((each) => !each.comparator && each.candidate === id);
  const live = policy.state === LIVE;
  const canary = policy.state === "POLICY_STATE_CANARY";
  const sure = gain(evaluated);
  const reasons = evaluated?.verdict?.reasons ?? [];
  return h(
    "li",
    { "data-key": id, "data-policy": id },
    h("div", { class: "what" },
      h("p", {}, h("strong", {}, id), " ", steps(policy)),
      h("p", { class: "about" }, formOf(policy), ` · since ${new Date(policy.createTime).toLocaleDateString("en-GB", { dateStyle: "medium" })}`),
      !live && h("p", { class: "about" }, verdictBadge(evaluated), sure && ` gain in utility ${sure}, at all times at once`),
      reasons.length > 0 && h("details", { class: "about" }, h("summary", {}, "why"), h("ul", {}, reasons.map((each) => h("li", {}, each))))),
    !live && h("div", { class: "buttons" },
      action("promote", isFormer(policy) ? "Go back to it" : "Promote", id, evaluated?.verdict?.outcome === PASSED ? "" : "quiet"),
      canary && action("take-back", "Take back", id),
      action("retire", "Retire", id)),
  );
}

function action(name, title, id, kind = "quiet") {
  return h("button", { type: "button", class: kind, "data-action": name, "data-policy": id, "aria-label": `${title}: ${id}` }, title);
}

/** Shadow, canary, live: which of them it is in. */
function steps(policy) {
  const share = policy.state === "POLICY_STATE_CANARY" ? ` ${percentText(policy.canaryShare)}` : "";
  return h("span", { class: "steps" }, ["SHADOW", "CANARY", "LIVE"].map((each) => {
    const now = policy.state === `POLICY_STATE_${each}`;
    return h("span", { class: now ? "now" : null, "aria-current": now ? "step" : null }, each.toLowerCase() + (now ? share : ""));
  }));
}

/** What the learner can go back to, the newest first. */
function snapshots({ snapshots: all, router }) {
  const newest = [...all].reverse();
  const rows = newest.slice(0, SNAPSHOTS).map((each) => {
    const id = idOf(each.name);
    const now = id === router.statistics?.snapshot;
    return h("tr", { "data-key": id, "data-snapshot": id },
      h("th", { scope: "row" }, id, " ", now && badge("served now", "good")),
      h("td", {}, time(each.createTime)),
      h("td", {}, each.source || "this router"),
      h("td", { class: "n" }, `${significant(number(each.sizeBytes) / 1e6, 2)} MB`),
      h("td", {}, h("button", { type: "button", class: "quiet", "data-action": "restore", "data-snapshot": id, "aria-label": `Go back to ${id}` }, "Go back")));
  });
  return h(
    "section",
    { class: "card", "data-key": "snapshots" },
    h("h2", {}, "Snapshots"),
    h("p", { class: "about" }, "What the learner knew, by the position in the log up to which it had learned."),
    rows.length
      ? table("Snapshots", [["Snapshot", ""], ["Saved", ""], ["Of", ""], ["Size", "n"], ["Change", ""]], rows)
      : h("p", { class: "about" }, "None is saved yet: the learner does so every few minutes while there is something to learn."),
    newest.length > SNAPSHOTS && h("p", { class: "about" }, `${newest.length - SNAPSHOTS} older ones: pointsman snapshots --router ${idOf(router.name)} list`),
  );
}

function warnings(evaluation) {
  const told = [
    evaluation?.livePolicyWorseThan && `The live policy is worse than ${evaluation.livePolicyWorseThan}, with confidence.`,
    evaluation?.guardrailCrossed,
  ].filter(Boolean);
  return told.length > 0 && h("div", { class: "card error", role: "alert", "data-key": "warnings" }, told.map((each) => h("p", {}, each)));
}

function standings({ evaluation, evaluationError, policies }) {
  const columns = [
    ["Candidate", ""], ["State", ""], ["Against live", ""], ["Utility", "n"], ["Quality", "n"], ["Cost", "n"], ["Worth", "n"], ["Verdict", ""],
  ];
  const found = evaluation?.candidates ?? [];
  const scale = scaleOf(found);
  return h(
    "section",
    { class: "card", "data-key": "league" },
    h("div", { class: "card-head" },
      h("h2", {}, "League of candidates"),
      h("button", { type: "button", class: "quiet", "data-action": "edit-gate" }, "Change what it takes to pass")),
    evaluation
      ? h("p", { class: "about" },
          "Each against the live policy, on ", count(evaluation.settledCount, { id: "settled-count" }),
          ` of its decisions, whose outcome is known. The lines, and what stands below each difference, are ${Math.round(evaluation.level * 100)}\u00a0% intervals, which hold at one time chosen beforehand; the verdict goes by those that hold at all times at once. Worth is how many decisions of its own they are worth. ${judgedBy(evaluation.requirements ?? {})}`)
      : h("p", { class: "about" }, evaluationError),
    found.length > 0 && table("League of candidates", columns, found.map((each) => standing(each, policies, scale))),
  );
}

/** What is asked of a candidate, in a sentence. */
function judgedBy(asked) {
  const parts = [
    asked.utilityMargin > 0 ? `utility above the live policy's by ${asked.utilityMargin}` : "utility above the live policy's",
    asked.qualityLossMax !== undefined && `quality at most ${asked.qualityLossMax} below`,
    asked.costFactorMax !== undefined && `cost at most ${asked.costFactorMax} times as high`,
    asked.latencyFactorMax !== undefined && `latency at most ${asked.latencyFactorMax} times`,
    asked.errorIncreaseMax !== undefined && `failed calls at most ${percentText(asked.errorIncreaseMax)} of all more`,
  ];
  return `To pass takes ${parts.filter(Boolean).join(", ")}.`;
}

/** Between what the lines are drawn: three times as far as the middle one of them reaches. Longer ones are cut. */
function scaleOf(candidates) {
  const reaches = candidates
    .map((each) => estimatesOf(each, "UTILITY")?.difference?.interval)
    .filter((each) => each?.low !== undefined)
    .map(({ low, high }) => Math.max(Math.abs(low), Math.abs(high)))
    .sort((a, b) => a - b);
  const most = 3 * (reaches[Math.floor((reaches.length - 1) / 2)] ?? 1);
  return [-most, most];
}

function standing(candidate, policies, [least, most]) {
  const policy = policies.find((each) => idOf(each.name) === candidate.candidate);
  const { value, interval = {} } = estimatesOf(candidate, "UTILITY")?.difference ?? {};
  const reasons = candidate.verdict?.reasons ?? [];
  return h(
    "tr",
    { "data-key": candidate.candidate, "data-candidate": candidate.candidate },
    h("th", { scope: "row" }, candidate.candidate),
    h("td", {}, candidate.comparator ? h("span", { class: "about" }, "comparison") : state(policy)),
    h("td", {}, interval.low === undefined
      ? h("span", { class: "about" }, "no interval yet")
      : whisker(value, interval.low, interval.high, least, most)),
    h("td", { class: "n" }, difference(candidate, "UTILITY")),
    h("td", { class: "n" }, difference(candidate, "QUALITY")),
    h("td", { class: "n" }, difference(candidate, "COST_USD")),
    h("td", { class: "n" }, datum(candidate.support?.effectiveSampleSize ?? 0, significant(candidate.support?.effectiveSampleSize ?? 0, 2))),
    h("td", { class: "wrap" }, reasons.length
      ? h("details", {}, h("summary", {}, verdictBadge(candidate)), h("ul", {}, reasons.map((each) => h("li", {}, each))))
      : verdictBadge(candidate)),
  );
}

function difference(candidate, metric) {
  const { value, interval = {} } = estimatesOf(candidate, metric)?.difference ?? {};
  const text = SIGNED[metric];
  const shown = value === undefined ? "–" : text(value);
  const range = interval.low === undefined ? "no interval yet" : rangeText(interval.low, interval.high, text);
  return [datum(value, shown, { "data-metric": metric }), h("span", { class: "about range", "data-range-of": metric }, range)];
}

function state(policy) {
  if (!policy) return "–";
  const share = policy.state === "POLICY_STATE_CANARY" ? `, ${percentText(policy.canaryShare)}` : "";
  return badge(words(policy.state, "POLICY_STATE_") + share, STATES[policy.state] ?? "");
}

function path({ transitions }) {
  const newest = [...transitions].reverse();
  return h(
    "section",
    { class: "card", "data-key": "path" },
    h("h2", {}, "Promotion path"),
    newest.length
      ? h("ol", { class: "path" }, newest.map(transition))
      : h("p", { class: "about" }, "Nothing has been done with a candidate yet. What is done is kept here, with who did it, why, and what was known then."),
  );
}

function transition(each) {
  const what = {
    TRANSITION_KIND_SETTINGS: "promotion settings changed",
    TRANSITION_KIND_SNAPSHOT: `restored ${idOf(each.snapshot ?? "")}`,
  }[each.kind];
  const to = words(each.toState, "POLICY_STATE_");
  const from = each.fromState ? `${words(each.fromState, "POLICY_STATE_")} → ` : "created, in ";
  const share = each.canaryShare ? `, ${percentText(each.canaryShare)} of the traffic` : "";
  return h(
    "li",
    { "data-key": `${each.position}/${each.policy}` },
    h("p", {},
      each.policy && h("strong", {}, idOf(each.policy)), " ", what ?? `${from}${to}${share}`, " ",
      each.forced && badge("forced", "warn"), each.automatic && badge("automatic")),
    h("p", { class: "about" }, time(each.createTime), each.actor && ` · ${each.actor}`, each.reason && ` · ${each.reason}`),
    evidence(each),
  );
}

function evidence({ evidenceJson, kind }) {
  if (!evidenceJson) return null;
  const known = JSON.parse(evidenceJson);
  const told = kind === "TRANSITION_KIND_POLICY" && known.outcome
    ? [
        h("p", {}, `${known.outcome} on ${number(known.events).toLocaleString("en")} decisions; gain in utility `,
          rangeText(known.utility_gain?.[0], known.utility_gain?.[1], (value) => qualityText(value, true)), ", at all times at once"),
        h("ul", {}, (known.reasons ?? []).map((reason) => h("li", {}, reason))),
      ]
    : h("pre", {}, JSON.stringify(known, null, 2));
  return h("details", { class: "about" }, h("summary", {}, "what was known then"), told);
}

// The candidates of a router against its live policy, and what has been done with them on which evidence.

import { h } from "./dom.js";
import { estimatesOf } from "./facts.js";
import { count, datum, idOf, number, percentText, qualityText, rangeText, significant, time, usdText, words } from "./format.js";
import { heading } from "./overview.js";
import { badge, command, table, whisker } from "./parts.js";

const VERDICTS = {
  VERDICT_OUTCOME_PASSED: ["✓ passes", "good"],
  VERDICT_OUTCOME_FAILED: ["! fails", "warn"],
  VERDICT_OUTCOME_UNDECIDED: ["undecided", ""],
  VERDICT_OUTCOME_REFUSED: ["cannot be told", ""],
};
const STATES = { POLICY_STATE_LIVE: "good", POLICY_STATE_CANARY: "good" };
const SIGNED = { UTILITY: qualityText, QUALITY: qualityText, COST_USD: (value) => usdText(value) };

/** The nodes of the view. `data` has router, evaluation (or null), evaluationError, policies and transitions. */
export function league(data) {
  return [heading(data.router), warnings(data.evaluation), standings(data), path(data)].filter(Boolean);
}

function warnings(evaluation) {
  const told = [
    evaluation?.livePolicyWorseThan && `The live policy is worse than ${evaluation.livePolicyWorseThan}, with confidence.`,
    evaluation?.guardrailCrossed,
  ].filter(Boolean);
  return told.length > 0 && h("div", { class: "card error", role: "alert", "data-key": "warnings" }, told.map((each) => h("p", {}, each)));
}

function standings({ evaluation, evaluationError, policies, router }) {
  const columns = [
    ["Candidate", ""], ["State", ""], ["Against live", ""], ["Utility", "n"], ["Quality", "n"], ["Cost", "n"], ["Worth, decisions", "n"], ["Verdict", ""],
  ];
  const found = evaluation?.candidates ?? [];
  const scale = scaleOf(found);
  const none = policies.every((each) => each.state === "POLICY_STATE_RETIRED" || each.state === "POLICY_STATE_LIVE");
  return h(
    "section",
    { class: "card", "data-key": "league" },
    h("h2", {}, "League of candidates"),
    evaluation
      ? h("p", { class: "about" },
          "Each against the live policy, on ", count(evaluation.settledCount, { id: "settled-count" }),
          " of its decisions, whose outcome is known. The lines are 95 % intervals, which hold at one time chosen beforehand; the verdict goes by those that hold at all times at once.")
      : h("p", { class: "about" }, evaluationError),
    found.length > 0 && table("League of candidates", columns, found.map((each) => standing(each, policies, scale))),
    none && h("p", {}, "There is no candidate beside the standing comparisons yet. One that is evaluated in shadow costs nothing:"),
    none && command(`pointsman policies --router ${idOf(router.name)} create greedy greedy`),
  );
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
  const [verdict, tone] = VERDICTS[candidate.verdict?.outcome] ?? ["–", ""];
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
      ? h("details", {}, h("summary", {}, badge(verdict, tone)), h("ul", {}, reasons.map((each) => h("li", {}, each))))
      : badge(verdict, tone)),
  );
}

function difference(candidate, metric) {
  const { value, interval = {} } = estimatesOf(candidate, metric)?.difference ?? {};
  const text = SIGNED[metric];
  const shown = value === undefined ? "–" : text(value, true);
  return datum(value, `${metric === "COST_USD" && value > 0 ? "+" : ""}${shown}`, {
    "data-metric": metric,
    title: interval.low === undefined ? "no interval yet" : `95 %: ${rangeText(interval.low, interval.high, (each) => text(each, true))}`,
  });
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
  const from = each.fromState ? `${words(each.fromState, "POLICY_STATE_")} → ` : "";
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

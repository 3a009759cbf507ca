// One decision, looked up by its id: what was chosen, from what, why, and what came of it.

import { h } from "./dom.js";
import { datum, number, percent, percentText, qualityText, secondsText, significant, time, usd, usdText, words } from "./format.js";
import { badge, bar, command, modelName, table } from "./parts.js";

const SHOWN_FROM = 0.0005;
const SOURCES = {
  CONTRIBUTION_SOURCE_LEVEL: "what it is worth on the typical query",
  CONTRIBUTION_SOURCE_DRIFT: "that it has become better or worse lately",
  CONTRIBUTION_SOURCE_DIFFICULTY: "how hard the query is",
  CONTRIBUTION_SOURCE_EMBEDDING: "what the query is about",
  CONTRIBUTION_SOURCE_CALLER: "the caller's own features",
  CONTRIBUTION_SOURCE_WHOLE: "the whole: this learner's cannot be taken apart",
};

/** The nodes of the view. `data` has wanted (the id, "" for none), decision (or null), told and colours. */
export function decisionView({ wanted, decision, told, colours }) {
  return [
    h("h1", { "data-key": "title" }, "Why this model"),
    h(
      "form",
      { class: "card look-up", "data-key": "look-up", "data-form": "look-up", role: "search" },
      h("label", { for: "decision-id" }, "The decision's id"),
      h("div", { class: "command" },
        h("input", { id: "decision-id", name: "id", value: wanted, autocomplete: "off", spellcheck: "false", maxlength: 64 }),
        h("button", { type: "submit" }, "Look up")),
      told && h("p", { class: "error", role: "alert" }, told),
      !wanted && h("p", { class: "about" }, "Route answers with it, as decisionId. The same by the command line:"),
      !wanted && command("pointsman explain DECISION"),
    ),
    ...(decision ? [summary(decision, colours), candidates(decision, colours), why(decision), reports(decision)] : []),
  ].filter(Boolean);
}

function summary(decision, colours) {
  const facts = [
    ["Router", decision.router.replace("routers/", "")],
    ["Decided", time(decision.createTime)],
    ["Propensity", decision.probability ? datum(decision.probability, percentText(decision.probability), { id: "decision-probability" }) : "not known"],
    ["Policy", decision.policy],
    ["Snapshot", decision.snapshot],
    ["Price of money", decision.priceOfMoney === undefined ? "–" : datum(decision.priceOfMoney, significant(decision.priceOfMoney))],
    ["Reward", decision.reward === undefined ? "none yet" : datum(decision.reward, qualityText(decision.reward), { id: "decision-reward" })],
    ["Cost", decision.costUsd === undefined ? "none reported yet" : usd(decision.costUsd, { id: "decision-cost" })],
    ["Session", decision.sessionId],
    ["Request", decision.requestId],
    ["Features sent", features(decision)],
    ["Counts", decision.active ? "" : "not yet: it was asked for ahead"],
    ["Prompt", decision.prompt],
  ].filter(([, value]) => value);
  return h(
    "section",
    { class: "card", "data-key": "summary" },
    h("h2", { id: "decision-model" }, modelName(decision.model, colours.get(decision.model))),
    h("p", { id: "decision-how" }, how(decision)),
    h("dl", { class: "facts" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value)))),
  );
}

function features({ numericFeatures = {}, categoricalFeatures = {} }) {
  return [...Object.entries(numericFeatures), ...Object.entries(categoricalFeatures)].map(([name, value]) => `${name}: ${value}`).join(", ");
}

/** In a sentence, by what it was chosen. */
function how(decision) {
  if (decision.policy === "imported") return "It was chosen elsewhere: the decision was imported.";
  if (decision.proposedModel && decision.model !== decision.incumbentModel) {
    return `It was drawn instead of ${decision.incumbentModel}, the caller's, to explore in shadow mode.`;
  }
  if (decision.proposedModel) return `The caller chose it, as the router is in shadow mode; the draw gave ${decision.proposedModel}.`;
  if (decision.sticky) return "Its session keeps its model.";
  if (decision.policy === "exploit_only") return "It was the best by what was known: the request wanted no exploration.";
  const eligible = decision.candidates.filter((each) => !each.exclusion);
  const best = eligible.reduce((one, other) => (number(other.score) > number(one.score) ? other : one));
  const probe = decision.probe ? ", as the probe of whether it works again" : "";
  if (best.model === decision.model) return `It had the best score, and was drawn${probe}.`;
  return `It was drawn to explore${probe}: ${best.model} had the best score.`;
}

function candidates(decision, colours) {
  const columns = [["Model", ""], ["Probability", "bars"], ["Quality", "n"], ["Cost", "n"], ["Latency", "n"], ["Score", "n"], ["Standing", ""]];
  const rows = decision.candidates.map((each) => {
    const colour = colours.get(each.model);
    const chosen = each.model === decision.model ? badge("chosen", "good") : each.model === decision.fallbackModels?.[0] ? badge("runner-up") : null;
    const excluded = each.exclusion && h("span", { class: "about" }, `${words(each.exclusion, "EXCLUSION_")}: ${each.exclusionDetail ?? ""}`);
    return h(
      "tr",
      { "data-key": each.model, "data-model": each.model },
      h("th", { scope: "row" }, modelName(each.model, colour)),
      h("td", { class: "bars" }, bar(number(each.probability), `m${colour ?? 8}`), percent(number(each.probability), { "data-field": "probability" })),
      h("td", { class: "n" }, datum(number(each.predictedQuality), qualityText(number(each.predictedQuality)), { "data-field": "predictedQuality" })),
      h("td", { class: "n" }, usd(number(each.predictedCostUsd), { "data-field": "predictedCostUsd" })),
      h("td", { class: "n" }, secondsText(each.predictedLatencySeconds)),
      h("td", { class: "n" }, excluded ? "–" : datum(number(each.score), qualityText(number(each.score)), { "data-field": "score" })),
      h("td", {}, excluded || chosen),
    );
  });
  return h(
    "section",
    { class: "card", "data-key": "candidates" },
    h("h2", {}, "What it was chosen from"),
    h("p", { class: "about" }, "As the decision saw it. The score is the quality less what cost and latency were worth then; the draw was made on it."),
    table("Candidates", columns, rows),
  );
}

function why(decision) {
  const found = new Map((decision.explanation?.candidates ?? []).map((each) => [each.model, each]));
  const chosen = found.get(decision.model);
  const other = found.get(decision.fallbackModels?.[0]);
  if (!chosen?.contributions?.length) {
    return h("section", { class: "card", "data-key": "why" }, h("h2", {}, "What spoke for it"), h("p", { class: "about" }, chosen?.detail || "It cannot be told any more."));
  }
  const against = other?.contributions ?? [];
  const terms = chosen.contributions
    .map((each, index) => ({ each, mine: number(each.quality), theirs: number(against[index]?.quality) }))
    .filter(({ mine, theirs }) => Math.max(Math.abs(mine), Math.abs(theirs)) >= SHOWN_FROM)
    .sort((a, b) => Math.abs(b.mine - b.theirs) - Math.abs(a.mine - a.theirs));
  const pair = against.length > 0;
  const sums = totals(decision, pair ? other.model : "");
  const most = Math.max(...[...terms, ...sums].map(({ mine, theirs }) => Math.abs(mine - theirs)), SHOWN_FROM);
  const columns = [["Of the predicted quality", ""], [decision.model, "n"], ...(pair ? [[other.model, "n"]] : []), [pair ? "Speaks for it" : "Size", ""]];
  const named = terms.map(({ each, ...values }) => ({ title: SOURCES[each.source] ?? `the text: ${(each.feature ?? "").replaceAll("_", " ")}`, ...values }));
  const rows = [...named, ...sums].map(({ title, total, mine, theirs }) => h(
    "tr",
    { class: total ? "total" : null, "data-total": total },
    h("th", { scope: "row" }, title),
    h("td", { class: "n" }, datum(mine, qualityText(mine, true))),
    pair && h("td", { class: "n" }, datum(theirs, qualityText(theirs, true))),
    h("td", {}, leaning(mine - theirs, most)),
  ));
  const own = decision.explanation.snapshot === decision.snapshot;
  return h(
    "section",
    { class: "card", "data-key": "why" },
    h("h2", {}, pair ? `What spoke for it, against ${other.model}` : "What spoke for it"),
    h("p", { class: "about" }, own
      ? "What the predicted quality is the sum of, as it was decided."
      : "What the predicted quality would be the sum of by what is known now; the decision was made with an older snapshot."),
    table("What spoke for it", columns, rows),
  );
}

/** From the quality as it was predicted to the score that the draw was made on, of the model and of the runner-up. */
function totals(decision, other) {
  const of = (model) => {
    const found = decision.candidates.find((each) => each.model === model) ?? {};
    const quality = number(found.predictedQuality);
    const cost = -number(found.predictedCostUsd) * number(decision.priceOfMoney);
    const score = number(found.score);
    return { quality, cost, latency: score - quality - cost, score };
  };
  const [mine, theirs] = [of(decision.model), of(other)];
  const rows = {
    quality: "quality, as it was predicted",
    cost: "less its cost, at the price of money",
    latency: "less its latency, at its price",
    score: "score: what the draw was made on",
  };
  return Object.entries(rows)
    .map(([total, title]) => ({ total, title, mine: mine[total], theirs: other ? theirs[total] : 0 }))
    .filter((each) => each.total !== "latency" || Math.max(Math.abs(each.mine), Math.abs(each.theirs)) >= SHOWN_FROM);
}

/** To the right what speaks for the model, to the left what speaks against it. */
function leaning(value, most) {
  const size = (Math.abs(value) / most) * 50;
  return h(
    "svg",
    { class: "leaning", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("rect", { class: value < 0 ? "against" : "for", x: value < 0 ? 50 - size : 50, width: size, height: 8 }),
    h("line", { class: "zero", x1: 50, x2: 50, y1: 0, y2: 8 }),
  );
}

function reports({ reports: found = [] }) {
  const columns = [["Arrived", ""], ["About", ""], ["Reward", "n"], ["Learned", "n"], ["Tokens in, out", "n"], ["Cost", "n"], ["Latency", "n"], ["Note", ""]];
  const rows = found.map((each) => {
    const { report, late, model, learnedReward } = each;
    const usage = report.usage;
    return h(
      "tr",
      {},
      h("td", {}, time(each.createTime)),
      h("td", {}, model, report.second && " (second call)"),
      h("td", { class: "n" }, qualityText(report.reward)),
      h("td", { class: "n" }, qualityText(learnedReward)),
      h("td", { class: "n" }, usage ? `${number(usage.inputTokens)}, ${number(usage.outputTokens)}` : "–"),
      h("td", { class: "n" }, usdText(usage?.costUsd)),
      h("td", { class: "n" }, secondsText(Number.parseFloat(report.latency ?? "0"))),
      h("td", {}, late && badge("late", "warn"), report.error && badge(words(report.error, "MODEL_ERROR_"), "warn")),
    );
  });
  return h(
    "section",
    { class: "card", "data-key": "reports" },
    h("h2", {}, "What came of it"),
    found.length ? table("Reports", columns, rows) : h("p", { class: "about" }, "Nothing has been reported of it yet."),
  );
}

// The first view: what a router spends, gains and risks, at a glance.

import { h } from "./dom.js";
import { budgetOf, lift, liveQuality, meanReward, missingRewards, savings, whyUnknown } from "./facts.js";
import {
  count, datum, intervalText, number, percent, quality, qualityText, secondsText, significant, usd, usdText,
} from "./format.js";
import { nextStep } from "./newcomer.js";
import { badge, bar, modelName, table, tile } from "./parts.js";

const HEALTH = [
  ["learner", "Learner", "has learned all there is", "is behind, or stands still"],
  ["evaluation", "Evaluation", "keeps up with the log", "is behind, or stands still"],
  ["live", "Live policy", "no sign that a fixed model is better", "a fixed model is better, or a guardrail is crossed"],
];

/** The nodes of the view. `data` has router, models, evaluation (or null, and why in evaluationError) and health. */
export function overview(data) {
  const { router, models } = data;
  const next = nextStep(router, models);
  return [
    heading(router),
    next,
    models.length > 0 && h(
      "div",
      { class: "tiles", "data-key": "tiles" },
      spend(router), worth(data), saved(data), gained(data),
      rewards(data), explored(router), money(router), health(data),
    ),
    data.charts,
    models.length > 0 && modelTable(data),
  ].filter(Boolean);
}

/** The router's name and what it is set to do. */
export function heading(router) {
  const shadow = router.mode === "ROUTER_MODE_SHADOW";
  return h(
    "div",
    { class: "heading", "data-key": "heading" },
    h("h1", {}, router.displayName || router.name.replace("routers/", "")),
    badge(shadow ? "shadow: looks on" : "live: decides", shadow ? "" : "good"),
    badge(`policy ${router.policy}`),
    h("span", { class: "about" }, count(router.statistics?.decisionCount, { id: "decision-count" }), " decisions"),
    h("span", { class: "buttons" },
      h("button", { type: "button", class: "quiet", "data-action": "edit-router" }, "Edit router"),
      h("button", { type: "button", class: "quiet", "data-action": "add-router" }, "New router")),
  );
}

function spend(router) {
  const spent = number(router.statistics?.spentUsd);
  const decided = number(router.statistics?.decisionCount);
  const budget = budgetOf(router);
  const mean = decided ? [usdText(spent / decided), " a request"] : ["nothing spent yet"];
  if (!budget) {
    const value = router.objective?.qualityValueUsd ?? 0.05;
    return tile("spend", "Spend", usd(spent), [mean, `no budget: quality from 0 to 1 is worth ${usdText(value)} a request`]);
  }
  const tone = budget.utilization > 1.1 ? "warn" : "";
  const used = [percent(budget.utilization), " of the budget of ", usd(budget.usd), ` a ${budget.kind}`];
  if (budget.kind === "request") {
    return tile("spend", "Spend", usd(spent), [used, mean], { bar: bar(budget.utilization), tone });
  }
  const left = ["this ", budget.kind, ": ", usd(budget.spentUsd), " of ", usd(budget.periodUsd), ", ", percent(budget.utilization)];
  const now = budget.nextUsd ? `a request may now cost ${usdText(budget.nextUsd)}` : "nothing is left: the cheapest model serves";
  return tile("spend", `Spend this ${budget.kind}`, usd(budget.spentUsd), [left, now, [usd(spent), " in all"]], {
    bar: bar(budget.utilization), tone,
  });
}

const signed = (value) => qualityText(value, true);

function worth({ models, evaluation, evaluationError }) {
  const { value, rewards } = meanReward(models);
  const gain = evaluation && lift(evaluation);
  const live = evaluation && liveQuality(evaluation);
  const range = live?.low === undefined
    ? (rewards > 0 && `no interval: ${evaluationError || whyUnknown(evaluation)}`)
    : h("span", { id: "quality-interval" }, `${intervalText(evaluation.level, live.low, live.high, qualityText)} of the live policy`);
  const difference = gain?.quality
    && `${signed(gain.quality.value)} against ${gain.model} alone, ${intervalText(evaluation.level, gain.quality.low, gain.quality.high, signed)}`;
  return tile("quality", "Quality", quality(value), [["mean of ", count(rewards), " rewards"], range, difference], {
    bar: bar(value ?? 0, "good"),
  });
}

function saved({ evaluation, evaluationError }) {
  const found = evaluation && savings(evaluation);
  if (found?.usd === undefined) return tile("savings", "Saved", "–", [evaluationError || found?.why]);
  const than = found.against === "incumbent" ? "the incumbent" : "the dearest model";
  return tile(
    "savings",
    `Saved against ${than}`,
    percent(found.share),
    [
      [usd(found.usd, { id: "savings-usd" }), " a request"],
      found.why ? `no interval: ${found.why}` : intervalText(evaluation.level, found.low, found.high, usdText),
    ],
    { tone: found.low > 0 ? "good" : "" },
  );
}

function gained({ evaluation, evaluationError }) {
  const found = evaluation && lift(evaluation);
  if (found?.value === undefined) return tile("lift", "Lift over the best fixed model", "–", [evaluationError || found?.why]);
  return tile(
    "lift",
    "Lift over the best fixed model",
    datum(found.value, signed(found.value)),
    ["utility a request", intervalText(evaluation.level, found.low, found.high, signed), ["against ", found.model]],
    { tone: found.low > 0 ? "good" : found.high < 0 ? "warn" : "" },
  );
}

function rewards({ models, late, range }) {
  const { closed, rate } = missingRewards(models);
  const learned = models.reduce((sum, each) => sum + number(each.statistics?.rewardCount), 0);
  return tile("rewards", "Rewards missing", percent(rate), [
    [count(learned), " rewards learned"],
    closed ? ["of ", count(closed), " decisions whose window has closed"] : "no window has closed yet",
    late && [count([...late.values()].reduce((sum, each) => sum + each, 0), { id: "late-total" }), ` came late, in ${range}`],
  ], { tone: rate > 0.5 ? "warn" : "" });
}

function explored(router) {
  const books = router.statistics?.exploration ?? {};
  const decided = number(router.statistics?.decisionCount);
  const most = router.exploration?.maxUtilityLoss ?? 0.01;
  const given = decided ? number(books.utility) / decided : undefined;
  return tile(
    "exploration",
    "Given up to explore",
    datum(given, given === undefined ? "–" : significant(given, 2)),
    [
      `utility a decision; its own draws may give up ${significant(most)}`,
      [count(books.decisionCount), " decisions: ", usd(number(books.costUsd)), ", ",
        datum(number(books.quality), significant(number(books.quality))), " of quality in all"],
      "no interval: it is what each draw was predicted to give up",
    ],
    // Not marked where it is above: a canary's draws are on the books too, and a new router has some in hand.
    { bar: bar(most ? Math.min(1, (given ?? 0) / most) : 0) },
  );
}

function money(router) {
  const price = number(router.statistics?.priceOfMoney);
  return tile("money", "Price of money (λ)", datum(price, significant(price)), [
    "utility a dollar costs now",
    price ? `one dollar more must bring ${significant(price)} of quality` : "money costs nothing: the best model serves",
  ]);
}

function health({ models, health: told }) {
  const active = models.filter((each) => each.state !== "MODEL_STATE_DISABLED");
  const working = active.filter((each) => each.statistics?.healthy).length;
  const well = HEALTH.every(([id]) => told[id] === "SERVING") && working === active.length;
  const lines = HEALTH.map(([id, name, good, bad]) => {
    const serves = told[id] === "SERVING";
    return h("span", { id: `health-${id}`, class: serves ? "ok" : "bad" }, `${serves ? "✓" : "!"} ${name}: ${serves ? good : bad}`);
  });
  const value = h("span", { id: "health-models" }, `${working} of ${active.length} models`);
  return tile("health", "Health", value, lines, { tone: well ? "good" : "warn" });
}

function modelTable({ router, models, colours, late, range }) {
  const decided = Math.max(1, models.reduce((sum, each) => sum + number(each.statistics?.decisionCount), 0));
  const columns = [
    ["Model", ""], ["Share", "bars"], ["Decisions", "n"], ["Quality", "n"], ["Cost a call", "n"], ["Latency", "n"],
    ["Missing", "n"], [`Late, ${range}`, "n"], ["Errors", "n"], ["Health", ""],
  ];
  const rows = models.map((each) => modelRow(each, decided, colours, late));
  return h(
    "section",
    { class: "card", "data-key": "models" },
    h("h2", {}, "Models"),
    table(`Models of ${router.name}`, columns, rows),
    h("p", { class: "about" }, "Plain means over the queries that each model was given. Those differ, so they do not compare the models: the league of candidates does, with intervals."),
  );
}

function modelRow(model, decided, colours, late) {
  const s = model.statistics ?? {};
  const share = number(s.decisionCount) / decided;
  const rewarded = number(s.rewardCount) > 0;
  const off = model.state === "MODEL_STATE_DISABLED";
  const number_ = colours.get(model.id);
  return h(
    "tr",
    { "data-key": model.id, "data-model": model.id },
    h("th", { scope: "row" }, modelName(model.id, number_)),
    h("td", { class: "bars" }, bar(share, `m${number_}`), percent(share)),
    h("td", { class: "n" }, count(s.decisionCount, { "data-field": "decisionCount" })),
    h("td", { class: "n" }, quality(rewarded ? s.meanReward ?? 0 : undefined, { "data-field": "meanReward" })),
    h("td", { class: "n" }, usd(s.meanCostUsd, { "data-field": "meanCostUsd" })),
    h("td", { class: "n" }, datum(s.meanLatencySeconds, secondsText(s.meanLatencySeconds), { "data-field": "meanLatencySeconds" })),
    h("td", { class: "n" }, number(s.closedCount) ? percent(number(s.missingRewardRate), { "data-field": "missingRewardRate" }) : "–"),
    h("td", { class: "n" }, late ? count(late.get(model.id) ?? 0, { "data-field": "lateCount" }) : "–"),
    h("td", { class: "n" }, count(s.errorCount, { "data-field": "errorCount" })),
    h("td", {}, off ? badge("disabled") : s.healthy ? badge("✓ works", "good") : badge("! failing", "warn")),
  );
}

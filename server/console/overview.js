// The first view: what a router spends, gains and risks, at a glance.

import { h } from "./dom.js";
import { budgetOf, lift, meanReward, missingRewards, savings } from "./facts.js";
import {
  count, datum, number, percent, percentText, quality, qualityText, rangeText, secondsText, significant, usd, usdText,
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

function worth({ models, evaluation }) {
  const { value, rewards } = meanReward(models);
  const gain = evaluation && lift(evaluation);
  const difference = gain?.quality && [
    `${qualityText(gain.quality.value, true)} against ${gain.model} alone, 95\u00a0%: `,
    rangeText(gain.quality.low, gain.quality.high, (each) => qualityText(each, true)),
  ];
  return tile("quality", "Quality", quality(value), [["mean of ", count(rewards), " rewards"], difference], {
    bar: bar(value ?? 0, "good"),
  });
}

function saved({ evaluation, evaluationError }) {
  const found = evaluation && savings(evaluation);
  if (!found) return tile("savings", "Saved", "–", [unknown(evaluationError)]);
  const than = found.against === "incumbent" ? "the incumbent" : "the dearest model";
  const range = found.low === undefined
    ? `no interval yet: too few decisions were ${found.against === "incumbent" ? "the incumbent's" : "for that model"}`
    : `95\u00a0%: ${rangeText(found.low, found.high, usdText)}`;
  return tile(
    "savings",
    `Saved against ${than}`,
    percent(found.share),
    [[usd(found.usd, { id: "savings-usd" }), " a request"], range],
    { tone: found.low > 0 ? "good" : "" },
  );
}

function gained({ evaluation, evaluationError }) {
  const found = evaluation && lift(evaluation);
  if (!found) return tile("lift", "Lift over the best fixed model", "–", [unknown(evaluationError)]);
  return tile(
    "lift",
    "Lift over the best fixed model",
    datum(found.value, qualityText(found.value, true)),
    [
      `utility a request, 95\u00a0%: ${rangeText(found.low, found.high, (each) => qualityText(each, true))}`,
      ["against ", found.model],
    ],
    { tone: found.low > 0 ? "good" : found.high < 0 ? "warn" : "" },
  );
}

function unknown(error) {
  return error || "not known yet: more rewards are needed";
}

function rewards({ models }) {
  const { closed, rate } = missingRewards(models);
  const learned = models.reduce((sum, each) => sum + number(each.statistics?.rewardCount), 0);
  return tile("rewards", "Rewards missing", percent(rate), [
    [count(learned), " rewards learned"],
    closed ? ["of ", count(closed), " decisions whose window has closed"] : "no window has closed yet",
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
      `utility a decision; the router's own draws may give up ${significant(most)} on average`,
      [count(books.decisionCount), " decisions: ", usd(number(books.costUsd)), ", ",
        datum(number(books.quality), significant(number(books.quality))), " of quality in all"],
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

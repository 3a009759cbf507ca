// The forms that create a router, change what it is set to do, and delete it.

import { createRouter, deleteRouter, updateRouter } from "./api.js";
import { h } from "./dom.js";
import { choice, decimal, durationOf, field, hours, inHundred, openForm, optional } from "./forms.js";
import { number } from "./format.js";

const MODES = [
  ["ROUTER_MODE_LIVE", "live: Pointsman decides"],
  ["ROUTER_MODE_SHADOW", "shadow: it looks on while your own rule decides"],
];
const BUDGETS = { budgetUsdPerRequest: "for a request, on average", budgetUsdPerDay: "for a day (UTC)", budgetUsdPerMonth: "for a month (UTC)" };
const POLICIES = { learned: "learned", greedy: "greedy: learned, without exploring", uniform: "uniform: all alike", cheapest: "the cheapest" };
const KEPT = [["false", "not kept"], ["true", "kept with the decision"]];
const MASK = [
  "displayName", "mode", "shadowExploreShare", "policy", "objective", "exploration.strength", "exploration.maxUtilityLoss",
  "rewardRule.joinWindow", "rewardRule.missingReward", "storePrompts",
].join(",");

/** Opens the form for a new router, or for `router`, whose models are given; `done` hears of its name. */
export function editRouter(dialog, router, models, done) {
  let name = router?.name ?? "";
  openForm(dialog, {
    title: router ? `Edit ${name.replace("routers/", "")}` : "Create a router",
    about: [router
      ? "What is changed acts on the next decision. Another policy, objective or exploration is another live policy: what the candidates are held against begins anew. A candidate that is promoted is judged first."
      : "A router has its own models, budget and learner: one for each use that has to be good at something else. Its models come next."],
    fields: fieldsOf(router ?? {}, models),
    submit: router ? "Save" : "Create",
    send: async (text) => {
      const wanted = wantedOf(text);
      const answer = router
        ? await updateRouter({ router: { ...wanted, name, etag: router.etag }, updateMask: MASK })
        : await createRouter({ routerId: text("routerId"), router: wanted });
      name = answer.router.name;
    },
    done: () => done(name),
  });
}

function fieldsOf(router, models) {
  const { objective = {}, exploration = {}, rewardRule = {} } = router;
  const budget = Object.keys(BUDGETS).find((each) => objective[each] !== undefined) ?? "";
  const decimals = { inputmode: "decimal" };
  const pair = (...fields) => h("div", { class: "pair" }, fields);
  return [
    router.name ? null : field("edit", "routerId", "Id, as callers name it", { required: true, maxlength: 63, placeholder: "support" }),
    field("edit", "displayName", "Name, for people", { value: router.displayName ?? "", maxlength: 200 }),
    pair(
      choice("edit", "budget", "Budget", [["", "none"], ...Object.entries(BUDGETS)], budget),
      field("edit", "amount", "Budget, in USD", { ...decimals, value: objective[budget] ?? "", fields: Object.keys(BUDGETS).join(" "), placeholder: "none" }),
      field("edit", "qualityValueUsd", "What quality from 0 to 1 is worth, in USD a request", {
        ...decimals, value: objective.qualityValueUsd ?? "", placeholder: budget ? "the budget decides" : "0.05",
      }),
      field("edit", "latencyUsdPerSecond", "What a second less is worth, in USD", { ...decimals, value: objective.latencyUsdPerSecond ?? "", placeholder: "0" }),
    ),
    pair(
      choice("edit", "policy", "Policy", policiesOf(router, models), router.policy ?? "learned"),
      choice("edit", "mode", "Mode", MODES, router.mode ?? MODES[0][0]),
      field("edit", "shadowExploreShare", "In shadow: share that it may decide, in %", { ...decimals, value: inHundred(router.shadowExploreShare), placeholder: "0" }),
      field("edit", "maxUtilityLoss", "What exploring may give up, in quality a decision", { ...decimals, value: exploration.maxUtilityLoss ?? "", placeholder: "0.01" }),
      field("edit", "strength", "Strength of exploration", { ...decimals, value: exploration.strength ?? "", placeholder: "1" }),
      field("edit", "joinWindow", "How long reports count, in hours", { ...decimals, value: hours(rewardRule.joinWindow), placeholder: "24" }),
      field("edit", "missingReward", "Reward assumed where none comes", { ...decimals, value: rewardRule.missingReward ?? "", placeholder: "none: not learned from" }),
      choice("edit", "storePrompts", "Prompts", KEPT, String(router.storePrompts ?? false)),
    ),
  ];
}

/** What can decide: the plain policies, each model alone, and what decides now. */
function policiesOf(router, models) {
  const options = { ...POLICIES };
  for (const each of models) options[`fixed:${each.id}`] = `always ${each.id}`;
  if (router.policy) options[router.policy] ??= router.policy;
  return Object.entries(options);
}

function wantedOf(text) {
  const budget = text("budget");
  return {
    displayName: text("displayName"),
    mode: text("mode"),
    shadowExploreShare: optional(text("shadowExploreShare"), 0.01),
    policy: text("policy"),
    objective: {
      ...(budget && { [budget]: decimal(text("amount") || "0") }),
      qualityValueUsd: optional(text("qualityValueUsd")),
      latencyUsdPerSecond: optional(text("latencyUsdPerSecond")),
    },
    exploration: { strength: optional(text("strength")), maxUtilityLoss: optional(text("maxUtilityLoss")) },
    rewardRule: { joinWindow: durationOf(text("joinWindow")), missingReward: optional(text("missingReward")) },
    storePrompts: text("storePrompts") === "true",
  };
}

/** Asks before a router is deleted: its id has to be typed. */
export function removeRouter(dialog, router, done) {
  const id = router.name.replace("routers/", "");
  openForm(dialog, {
    title: `Delete ${id}?`,
    about: [
      `The router goes with its models, its candidates and all that it has learned, from ${number(router.statistics?.rewardCount).toLocaleString("en")} rewards. Callers that name it are refused from then on.`,
    ],
    fields: [field("delete", "id", `To go on, type ${id}`, { required: true })],
    submit: "Delete",
    danger: true,
    send: async (text) => {
      if (text("id") !== id) throw new Error(`The router's id is ${id}; nothing was deleted`);
      await deleteRouter({ name: router.name, etag: router.etag });
    },
    done,
  });
}

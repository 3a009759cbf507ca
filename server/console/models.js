// The models of a router and their prices, and the forms that add and change them.

import { createModel, deleteModel, updateModel } from "./api.js";
import { h } from "./dom.js";
import { choice, decimal, field, openForm } from "./forms.js";
import { number, time } from "./format.js";
import { nextStep } from "./newcomer.js";
import { heading } from "./overview.js";
import { badge, modelName, table } from "./parts.js";

const PRICES = [
  ["inputUsdPerMillionTokens", "USD for a million input tokens"],
  ["outputUsdPerMillionTokens", "USD for a million output tokens"],
  ["usdPerRequest", "USD for every request on top"],
  ["cachedInputUsdPerMillionTokens", "USD for a million cached input tokens"],
];
const ACTIVE = "MODEL_STATE_ACTIVE";
const DISABLED = "MODEL_STATE_DISABLED";

/** The nodes of the view. */
export function modelsView({ router, models, colours }) {
  const columns = [
    ["Model", ""], ["State", ""], ["Input", "n"], ["Output", "n"], ["Cached input", "n"], ["A request", "n"], ["Context", "n"],
    ["Capabilities", ""], ["Changed", ""], ["Change", ""],
  ];
  const next = models.length ? null : nextStep(router, models);
  return [
    heading(router),
    next,
    models.length > 0 && h(
      "section",
      { class: "card", "data-key": "prices" },
      h("div", { class: "card-head" }, h("h2", {}, "Models and prices"), h("button", { type: "button", "data-action": "add-model" }, "Add a model")),
      h("p", { class: "about" }, "USD for a million tokens. A new price acts on the very next decision: nothing has to be learned anew."),
      table("Models and prices", columns, models.map((each) => row(each, colours))),
    ),
    router.name !== "routers/default" && h(
      "p",
      { class: "about", "data-key": "remove" },
      h("button", { type: "button", class: "quiet", "data-action": "remove-router" }, "Delete this router"),
    ),
  ].filter(Boolean);
}

function row(model, colours) {
  const { prices = {} } = model;
  const price = (name) => h("td", { class: "n" }, h("data", { value: number(prices[name]), "data-field": name }, `$${number(prices[name])}`));
  const cached = prices.cachedInputUsdPerMillionTokens;
  return h(
    "tr",
    { "data-key": model.id, "data-model": model.id },
    h("th", { scope: "row" }, modelName(model.id, colours.get(model.id))),
    h("td", {}, model.state === DISABLED ? badge("disabled") : badge("active", "good")),
    price("inputUsdPerMillionTokens"),
    price("outputUsdPerMillionTokens"),
    h("td", { class: "n" }, cached === undefined ? h("span", { class: "about" }, "a tenth") : `$${cached}`),
    price("usdPerRequest"),
    h("td", { class: "n" }, number(model.contextWindowTokens) ? number(model.contextWindowTokens).toLocaleString("en") : "–"),
    h("td", {}, (model.capabilities ?? []).join(", ") || "–"),
    h("td", { class: "about" }, time(model.updateTime)),
    h("td", { class: "actions" },
      action("edit-model", "Edit", model.id),
      action("switch-model", model.state === DISABLED ? "Enable" : "Disable", model.id),
      action("remove-model", "Delete", model.id)),
  );
}

function action(name, title, id) {
  return h("button", { type: "button", class: "quiet", "data-action": name, "data-model": id, "aria-label": `${title} ${id}` }, title);
}

/** Opens the form for a new model of `router`, or for `model`; `done` is called when the server has taken it. */
export function editModel(dialog, router, model, done) {
  openForm(dialog, {
    title: model ? `Edit ${model.id}` : "Add a model",
    fields: [
      !model && field("model", "modelId", "Id, as you call it", { required: true, maxlength: 127, placeholder: "gpt-4o" }),
      field("model", "displayName", "Name, for people", { value: model?.displayName ?? "", maxlength: 200 }),
      h("div", { class: "pair" }, PRICES.map(([name, title]) => priceField(name, title, model?.prices ?? {}))),
      h("div", { class: "pair" },
        field("model", "contextWindowTokens", "Context window, in tokens", { value: number(model?.contextWindowTokens) || "", inputmode: "numeric", placeholder: "unknown" }),
        field("model", "capabilities", "Capabilities, with commas", { value: (model?.capabilities ?? []).join(", "), placeholder: "tools, vision" })),
      choice("model", "state", "State", [[ACTIVE, "active: it may be chosen"], [DISABLED, "disabled: kept, but not chosen"]], model?.state ?? ACTIVE),
    ],
    submit: model ? "Save" : "Add",
    send: (given) => send(router, model, given),
    done,
  });
}

/** Asks before a model is disabled, or may be chosen again. */
export function switchModel(dialog, model, done) {
  const off = model.state !== DISABLED;
  openForm(dialog, {
    title: off ? `Disable ${model.id}?` : `Enable ${model.id}?`,
    about: [off
      ? "From the next decision on it is not chosen. What was learned of it is kept, and it can be enabled again."
      : "From the next decision on it may be chosen again, with what was learned of it before."],
    submit: off ? "Disable" : "Enable",
    danger: off,
    send: () => updateModel({ model: { name: model.name, etag: model.etag, state: off ? DISABLED : ACTIVE }, updateMask: "state" }),
    done,
  });
}

/** Asks before a model is deleted. */
export function removeModel(dialog, model, done) {
  openForm(dialog, {
    title: `Delete ${model.id}?`,
    about: [
      `What was learned of it, from ${number(model.statistics?.rewardCount).toLocaleString("en")} rewards, is gone for good; what was learned of the others stays. To keep it, disable it.`,
    ],
    submit: "Delete",
    danger: true,
    send: () => deleteModel({ name: model.name, etag: model.etag }),
    done,
  });
}

function priceField(name, title, prices) {
  const cached = name === "cachedInputUsdPerMillionTokens";
  const value = cached ? prices[name] ?? "" : number(prices[name]);
  return field("model", name, title, { value, inputmode: "decimal", placeholder: cached ? "a tenth of the input's" : "0" });
}

async function send(router, model, text) {
  const prices = Object.fromEntries(PRICES.map(([name]) => [name, text(name)]).filter(([, value]) => value !== "").map(([name, value]) => [name, decimal(value)]));
  const wanted = {
    displayName: text("displayName"),
    prices,
    contextWindowTokens: decimal(text("contextWindowTokens") || "0"),
    capabilities: text("capabilities").split(",").map((each) => each.trim()).filter(Boolean),
    state: text("state"),
  };
  if (!model) return createModel({ parent: router.name, modelId: text("modelId"), model: wanted });
  const mask = "displayName,prices,contextWindowTokens,capabilities,state";
  return updateModel({ model: { ...wanted, name: model.name, etag: model.etag }, updateMask: mask });
}

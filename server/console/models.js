// The models of a router and their prices, and the forms that add and change them.

import { createModel, updateModel } from "./api.js";
import { h } from "./dom.js";
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
    h("td", {}, h("button", { type: "button", class: "quiet", "data-action": "edit-model", "data-model": model.id, "aria-label": `Edit ${model.id}` }, "Edit")),
  );
}

/** Opens the form for a new model of `router`, or for `model`; `done` is called when the server has taken it. */
export function editModel(dialog, router, model, done) {
  const error = h("p", { class: "error", role: "alert", hidden: true });
  const form = h(
    "form",
    { method: "dialog", class: "form", novalidate: true },
    h("h2", { id: "dialog-title" }, model ? `Edit ${model.id}` : "Add a model"),
    error,
    !model && field("modelId", "Id, as you call it", { required: true, maxlength: 127, placeholder: "gpt-4o" }),
    field("displayName", "Name, for people", { value: model?.displayName ?? "", maxlength: 200 }),
    h("div", { class: "pair" }, PRICES.map(([name, title]) => priceField(name, title, model?.prices ?? {}))),
    h("div", { class: "pair" },
      field("contextWindowTokens", "Context window, in tokens", { value: number(model?.contextWindowTokens) || "", inputmode: "numeric", placeholder: "unknown" }),
      field("capabilities", "Capabilities, with commas", { value: (model?.capabilities ?? []).join(", "), placeholder: "tools, vision" })),
    h("div", { class: "field" },
      h("label", { for: "model-state" }, "State"),
      h("select", { id: "model-state", name: "state" },
        h("option", { value: "MODEL_STATE_ACTIVE", selected: model?.state !== DISABLED }, "active: it may be chosen"),
        h("option", { value: DISABLED, selected: model?.state === DISABLED }, "disabled: kept, but not chosen"))),
    h("div", { class: "buttons" },
      h("button", { type: "button", class: "quiet", value: "cancel" }, "Cancel"),
      h("button", { type: "submit" }, model ? "Save" : "Add")),
  );
  form.addEventListener("click", (event) => event.target.value === "cancel" && dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await send(router, model, new FormData(form));
      dialog.close();
      done();
    } catch (failure) {
      showFailure(form, error, failure);
    }
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

function field(name, title, attributes) {
  return h("div", { class: "field" },
    h("label", { for: `model-${name}` }, title),
    h("input", { id: `model-${name}`, name, autocomplete: "off", spellcheck: "false", ...attributes }));
}

function priceField(name, title, prices) {
  const cached = name === "cachedInputUsdPerMillionTokens";
  const value = cached ? prices[name] ?? "" : number(prices[name]);
  return field(name, title, { value, inputmode: "decimal", placeholder: cached ? "a tenth of the input's" : "0" });
}

/** Nothing is checked here: the server says what is wrong, as it does to everyone. */
async function send(router, model, given) {
  const text = (name) => String(given.get(name) ?? "").trim();
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

/** A number; what is none goes as it is, and the server says which field it is. */
function decimal(text) {
  const value = Number(text.replace(",", "."));
  return Number.isFinite(value) ? value : text;
}

function showFailure(form, error, failure) {
  const stale = failure.code === "aborted" ? " Somebody else has changed it since: close, and look again." : "";
  error.textContent = `${failure.message}.${stale}`.replace("..", ".");
  error.hidden = false;
  const fields = [...form.elements].filter((each) => each.name);
  for (const each of fields) each.removeAttribute("aria-invalid");
  const at = failure.violations?.map((each) => camel(each.field.split(".").pop())).join(" ") ?? "";
  const wrong = fields.find((each) => at.includes(each.name));
  wrong?.setAttribute("aria-invalid", "true");
  (wrong ?? error).focus();
}

function camel(name) {
  return name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
}

// Forms in the dialog: what is asked before anything is changed, and what the server says when it refuses.

import { h } from "./dom.js";
import { number } from "./format.js";

const ACTOR = "pointsman.actor";

/** Opens a form in `dialog`. `send` gets what was filled in and calls the server, `done` is called when it has taken it.
 *
 * `refused` may give more to fill in after a failure, such as what goes on all the same. Nothing is checked here: the
 * server says what is wrong, as it does to everyone.
 */
export function openForm(dialog, { title, about = [], fields = [], submit, danger = false, send, done, refused = null }) {
  const error = h("div", { class: "error", role: "alert", hidden: true });
  const more = h("div", { class: "form" });
  const button = h("button", { type: "submit", class: danger ? "danger" : null }, submit);
  const form = h(
    "form",
    { method: "dialog", class: "form", novalidate: true },
    h("h2", { id: "dialog-title" }, title),
    about.map((line) => (line instanceof Node ? line : h("p", {}, line))),
    error,
    fields,
    more,
    h("div", { class: "buttons" }, h("button", { type: "button", class: "quiet", value: "cancel" }, "Cancel"), button),
  );
  form.addEventListener("click", (event) => event.target.value === "cancel" && dialog.close());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await send(filledIn(form));
      dialog.close();
      done();
    } catch (failure) {
      const extra = refused?.(failure);
      if (extra && !more.hasChildNodes()) more.append(extra);
      showFailure(form, error, failure);
    } finally {
      button.disabled = false;
    }
  });
  dialog.replaceChildren(form);
  dialog.showModal();
}

/** What stands in the fields, as trimmed text; who asks is remembered as long as the tab. */
function filledIn(form) {
  const given = new FormData(form);
  if (given.get("actor")) sessionStorage.setItem(ACTOR, given.get("actor"));
  return (name) => String(given.get(name) ?? "").trim();
}

/** A line to fill in. `fields` of the attributes are those of the API that it stands for, where that is not its name. */
export function field(form, name, title, { fields, ...attributes } = {}) {
  return h("div", { class: "field" },
    h("label", { for: `${form}-${name}` }, title),
    h("input", { id: `${form}-${name}`, name, "data-fields": fields, autocomplete: "off", spellcheck: "false", ...attributes }));
}

/** One of several; `options` are [value, text]. */
export function choice(form, name, title, options, chosen) {
  return h("div", { class: "field" },
    h("label", { for: `${form}-${name}` }, title),
    h("select", { id: `${form}-${name}`, name }, options.map(([value, text]) => h("option", { value, selected: value === chosen }, text))));
}

export function tick(form, name, title) {
  return h("p", { class: "tick" }, h("input", { type: "checkbox", id: `${form}-${name}`, name }), h("label", { for: `${form}-${name}` }, title));
}

/** Why, and who asks: what is kept on record. */
export function record(form) {
  return h("div", { class: "pair" },
    field(form, "reason", "Why, for the record", { maxlength: 1000 }),
    field(form, "actor", "Who asks, for the record", { maxlength: 256, value: sessionStorage.getItem(ACTOR) ?? "", placeholder: "this address" }));
}

/** A number; what is none goes as it is, and the server says which field it is. */
export function decimal(text, factor = 1) {
  const value = Number(text.replace(",", "."));
  return Number.isFinite(value) ? Number((value * factor).toPrecision(15)) : text;
}

/** What was left empty is not set. */
export function optional(text, factor) {
  return text === "" ? undefined : decimal(text, factor);
}

/** A share as its percentage to be filled in; empty for none. */
export function inHundred(share) {
  return number(share) ? Number((number(share) * 100).toPrecision(12)) : "";
}

/** A duration of the API in hours, to be filled in. */
export function hours(duration) {
  return duration ? Number.parseFloat(duration) / 3600 : "";
}

/** What was filled in, in hours, as a duration of the API. */
export function durationOf(text) {
  const seconds = optional(text, 3600);
  return typeof seconds === "number" ? `${seconds}s` : seconds;
}

function showFailure(form, error, failure) {
  const stale = failure.code === "aborted" ? " Somebody else has changed it since: close, and look again." : "";
  const rights = [401, 403].includes(failure.status) ? " Nothing was changed: it takes a key with the scope administer." : "";
  const reasons = Array.from({ length: 20 }, (_, index) => failure.metadata?.[`reason_${index + 1}`]).filter(Boolean);
  error.replaceChildren(
    h("p", {}, `${failure.message || "something failed"}.${stale}${rights}`.replace("..", ".")),
    ...(reasons.length > 1 ? [h("ul", {}, reasons.slice(1).map((each) => h("li", {}, each)))] : []),
  );
  error.hidden = false;
  const fields = [...form.elements].filter((each) => each.name);
  for (const each of fields) each.removeAttribute("aria-invalid");
  const at = (failure.violations ?? []).map((each) => camel(each.field.split(".").pop().replace(/\[.*/, "")));
  const wrong = fields.find((each) => (each.dataset.fields ?? each.name).split(" ").some((name) => at.includes(name)));
  wrong?.setAttribute("aria-invalid", "true");
  wrong?.focus();
  error.scrollIntoView({ block: "nearest" });
}

function camel(name) {
  return name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
}

// Asks for the key where the server wants one, and keeps it as long as the tab.

import { currentKey, rememberKey } from "./api.js";
import { h } from "./dom.js";
import { command } from "./parts.js";

let dialog;
let onChange;

/** `button` opens the dialog; `changed` is called with every new key. */
export function startKeys(button, element, changed) {
  dialog = element;
  onChange = changed;
  button.addEventListener("click", () => askForKey(""));
}

/** Opens the dialog with what the server said; where another form is open, once that is closed. */
export function askForKey(told) {
  if (dialog.open) {
    if (!dialog.querySelector("#key-input")) dialog.addEventListener("close", () => onChange(), { once: true });
    return;
  }
  const input = h("input", { id: "key-input", type: "password", autocomplete: "off", spellcheck: "false", required: true });
  const form = h(
    "form",
    { method: "dialog", class: "form" },
    h("h2", { id: "dialog-title" }, currentKey() ? "Another key" : "A key"),
    told && h("p", { class: "error", role: "alert" }, told),
    h("p", {}, "The console needs a key with the scope administer. It is kept in this tab alone, until the tab is closed. Where the server runs, create one:"),
    command("pointsman keys create --name console --scope administer"),
    h("label", { for: "key-input" }, "Key"),
    input,
    h(
      "div",
      { class: "buttons" },
      currentKey() && h("button", { type: "button", class: "quiet", value: "forget" }, "Forget the key"),
      h("button", { type: "button", class: "quiet", value: "cancel" }, "Cancel"),
      h("button", { type: "submit" }, "Use this key"),
    ),
  );
  form.addEventListener("submit", () => use(input.value.trim()));
  form.addEventListener("click", (event) => {
    if (event.target.value === "forget") use("");
    if (["forget", "cancel"].includes(event.target.value)) dialog.close();
  });
  dialog.replaceChildren(form);
  dialog.showModal();
  input.focus();
}

function use(key) {
  rememberKey(key);
  onChange();
}

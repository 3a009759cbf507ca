// The parts that every view is made of.

import { h } from "./dom.js";

/** A number that counts, with its name above, what it means below, and perhaps a bar of how much of it is used. */
export function tile(id, title, value, about, { bar = null, tone = "" } = {}) {
  return h(
    "section",
    { class: `tile ${tone}`, "data-key": id, id: `tile-${id}`, "aria-labelledby": `tile-${id}-title` },
    h("h2", { id: `tile-${id}-title` }, title),
    h("p", { class: "value" }, value),
    bar,
    about.filter(Boolean).map((line) => h("p", { class: "about" }, line)),
  );
}

/** A bar of `share`, 1 being full; what is above 1 is marked. Its number stands beside it in words. */
export function bar(share, tone = "") {
  const shown = Math.max(0, Math.min(1, Number.isFinite(share) ? share : 0));
  return h(
    "svg",
    { class: `meter ${share > 1.1 ? "over" : tone}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("rect", { class: "track", width: 100, height: 6 }),
    h("rect", { class: "fill", width: (shown * 100).toFixed(2), height: 6 }),
  );
}

/** An interval on a line from `least` to `most`, with its value as a point and 0 as a mark. */
export function whisker(value, low, high, least, most) {
  const clamp = (x) => Math.min(Math.max(x, least), most);
  const at = (x) => (((x - least) / (most - least || 1)) * 200).toFixed(1);
  return h(
    "svg",
    { class: "whisker", viewBox: "0 0 200 16", "aria-hidden": "true" },
    least <= 0 && most >= 0 && h("line", { class: "zero", x1: at(0), x2: at(0), y1: 0, y2: 16 }),
    low !== undefined && h("line", { class: "range", x1: at(clamp(low)), x2: at(clamp(high)), y1: 8, y2: 8 }),
    h("circle", { class: "point", cx: at(clamp(value)), cy: 8, r: 4 }),
  );
}

/** A state in a word and a colour. */
export function badge(text, tone = "") {
  return h("span", { class: `badge ${tone}` }, text);
}

/** A model's name with its colour. */
export function modelName(id, number) {
  return h("span", { class: "model" }, h("i", { class: `dot m${number ?? 8}`, "aria-hidden": "true" }), id);
}

/** A table that scrolls sideways where the page is narrow; `columns` are [title, class]. */
export function table(caption, columns, rows) {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("caption", { class: "hidden" }, caption),
      h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title)))),
      h("tbody", {}, rows),
    ),
  );
}

/** A command to type, with a button that copies it. */
export function command(text) {
  return h(
    "div",
    { class: "command" },
    h("pre", { tabindex: 0, role: "region", "aria-label": "Command" }, h("code", {}, text)),
    h("button", { type: "button", class: "quiet", "data-action": "copy", "data-text": text }, "Copy"),
  );
}

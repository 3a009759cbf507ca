// Light or dark: as the system has it, until the reader chooses.

import { h, morphChildren } from "./dom.js";

const CHOSEN = "pointsman.theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };

/** Applies what was chosen, and lets `button` change it; `onChange` hears of every change, the system's too. */
export function startTheme(button, onChange) {
  const apply = () => {
    const theme = localStorage.getItem(CHOSEN) ?? "auto";
    document.documentElement.dataset.theme = theme;
    morphChildren(button, [h("span", { class: "wide" }, "Theme: "), theme]);
    onChange();
  };
  button.addEventListener("click", () => {
    localStorage.setItem(CHOSEN, NEXT[localStorage.getItem(CHOSEN) ?? "auto"]);
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", onChange);
  apply();
}

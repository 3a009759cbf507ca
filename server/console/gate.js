// The form that changes what a candidate must show to be promoted, and whether the server promotes by itself.

import { updatePromotionSettings } from "./api.js";
import { h } from "./dom.js";
import { decimal, durationOf, field, hours, inHundred, openForm, optional, record } from "./forms.js";
import { number } from "./format.js";

const GUARDRAILS = {
  qualityLossMax: "Quality may be lower by",
  costFactorMax: "Cost may be, times the live policy's",
  latencyFactorMax: "Latency may be, times the live policy's",
  errorIncreaseMax: "Share of failed calls may be higher by",
};
const LEAST = {
  effectiveSampleSizeMin: "What the decisions must be worth",
  unsupportedMax: "Share that may not be comparable",
};

/** Opens the form; `settings` are the router's, which the server changes as a whole. */
export function editGate(dialog, settings, done) {
  const { requirements: asked = {} } = settings;
  const line = (name, title, value, placeholder) => field("gate", name, title, { inputmode: "decimal", value, placeholder });
  openForm(dialog, {
    title: "What it takes to pass",
    about: ["Candidates are judged by this, and a policy that was promoted is held to the guardrails. One that is left empty is not asked for."],
    fields: [
      h("div", { class: "pair" },
        line("utilityMargin", "Utility must be higher by", number(asked.utilityMargin), "0"),
        Object.entries(GUARDRAILS).map(([name, title]) => line(name, title, asked[name] ?? "", "not asked for")),
        Object.entries(LEAST).map(([name, title]) => line(name, title, number(asked[name]), "0")),
        line("automaticCanaryShare", "Promote by itself, with a canary of (in %)", inHundred(settings.automaticCanaryShare), "never"),
        line("canaryTime", "A canary serves at least, in hours", hours(settings.canaryTime), "1")),
      record("gate"),
    ],
    submit: "Save",
    send: (text) => updatePromotionSettings({ promotionSettings: wanted(settings, text), reason: text("reason"), actor: text("actor") }),
    done,
  });
}

function wanted(settings, text) {
  return {
    name: settings.name,
    etag: settings.etag,
    requirements: {
      ...Object.fromEntries(Object.keys(GUARDRAILS).map((name) => [name, optional(text(name))])),
      ...Object.fromEntries(["utilityMargin", ...Object.keys(LEAST)].map((name) => [name, decimal(text(name) || "0")])),
    },
    automaticCanaryShare: decimal(text("automaticCanaryShare") || "0", 0.01),
    canaryTime: durationOf(text("canaryTime")),
  };
}

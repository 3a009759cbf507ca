// What a router did over time, in charts: shares of the traffic, spend, quality and rewards that never came.

import { resolved } from "./colours.js";
import { h } from "./dom.js";
import { number, percentText, qualityText, significant, usdText } from "./format.js";
import { modelName } from "./parts.js";
import UPlot from "./vendor/uplot.js";

const HEIGHT = 220;
const DAY = 86_400;
/** The stretches of time to choose from, in seconds. */
export const RANGES = { "1 h": 3600, "24 h": DAY, "7 d": 7 * DAY, "30 d": 30 * DAY };

/** The series of a history: a point for each of its buckets, in order, those too in which nothing was. */
export function seriesOf(history, models) {
  const seconds = Number.parseFloat(history.bucket);
  const [start, end] = [Date.parse(history.startTime) / 1000, Date.parse(history.endTime) / 1000];
  const times = Array.from({ length: Math.round((end - start) / seconds) }, (_, index) => start + index * seconds);
  const counts = new Map((history.buckets ?? []).map((each) => [Date.parse(each.startTime) / 1000, each.models ?? []]));
  const at = (model, field) => times.map((time) => number(counts.get(time)?.find((each) => each.model === model)?.[field]));
  const ids = [...new Set([...models, ...[...counts.values()].flat().map((each) => each.model)])];
  const summed = (field) => times.map((time) => (counts.get(time) ?? []).reduce((sum, each) => sum + number(each[field]), 0));
  return { seconds, times, ids, at, summed };
}

/** How many reports of each model came too late in that time, by its id. */
export function lateReports(history) {
  const late = new Map();
  for (const { models = [] } of history?.buckets ?? []) {
    for (const each of models) late.set(each.model, (late.get(each.model) ?? 0) + number(each.lateCount));
  }
  return late;
}

/** The cards of the charts; `drawCharts` fills them. */
export function chartCards(history, range, colours) {
  const choices = Object.keys(RANGES).map((each) =>
    h("button", { type: "button", class: "quiet", "data-action": "range", "data-range": each, "aria-pressed": each === range ? "true" : "false" }, each));
  const total = (history.buckets ?? []).flatMap((each) => each.models ?? []).reduce((sum, each) => sum + number(each.decisionCount), 0);
  return h(
    "div",
    { class: "charts", "data-key": "charts" },
    h("div", { class: "card-head" },
      h("h2", {}, "Over time"),
      h("div", { class: "legend" }, [...colours].map(([id, colour]) => modelName(id, colour))),
      h("div", { class: "ranges", role: "group", "aria-label": "Stretch of time" }, choices)),
    h("p", { class: "hidden", id: "history-total" }, h("data", { value: total }, `${total} decisions in this time`)),
    h("div", { class: "cards" },
      card("share", "Share of traffic by model"), card("spend", "Spend by model"),
      card("quality", "Quality: mean reward"), card("missing", "Rewards missing when the window ended")),
  );
}

function card(id, title) {
  return h(
    "section",
    { class: "card chart", "aria-labelledby": `chart-${id}-title` },
    h("h3", { id: `chart-${id}-title` }, title),
    h("div", { class: "plot", id: `chart-${id}`, "data-keep": true }),
    h("p", { class: "about readout", id: `readout-${id}`, "data-keep": true, "aria-hidden": "true" }, "\u00a0"),
    h("details", { class: "about" }, h("summary", {}, "as a table"), h("div", { id: `table-${id}`, "data-keep": true })),
  );
}

const drawn = new Map();

/** Draws the charts of a history into their cards, and writes each as a table for who cannot see it. */
export function drawCharts(history, colours) {
  const series = seriesOf(history, colours.keys());
  const share = series.ids.map((id) => ({ id, values: shares(series.at(id, "decisionCount"), series.summed("decisionCount")) }));
  const spend = series.ids.map((id) => ({ id, values: series.at(id, "costUsd") }));
  const quality = series.ids.map((id) => ({ id, values: ratios(series.at(id, "rewardSum"), series.at(id, "rewardCount")) }));
  const missing = series.ids.map((id) => ({ id, values: ratios(series.at(id, "missingCount"), series.at(id, "closedCount")) }));
  const inHundred = (value) => `${Math.round(value * 100)}\u00a0%`;
  draw("share", series, share, colours, { stacked: true, text: (value) => percentText(value), tick: inHundred, range: [0, 1] });
  draw("spend", series, spend, colours, { stacked: true, text: usdText, tick: (value) => `$${significant(value)}` });
  draw("quality", series, quality, colours, { text: (value) => qualityText(value), tick: (value) => value.toFixed(2) });
  draw("missing", series, missing, colours, { text: (value) => percentText(value), tick: inHundred, range: [0, 1] });
}

function shares(values, totals) {
  return values.map((value, index) => (totals[index] ? value / totals[index] : null));
}

function ratios(sums, counts) {
  return sums.map((sum, index) => (counts[index] ? sum / counts[index] : null));
}

/** `lines` are what is shown; where they are stacked each is drawn on top of those before. */
function draw(id, series, lines, colours, { stacked = false, text, tick, range = null }) {
  const place = document.getElementById(`chart-${id}`);
  if (!place) return;
  const theme = getComputedStyle(document.documentElement).colorScheme + matchMedia("(prefers-color-scheme: dark)").matches;
  const shape = [theme, series.times.length, series.seconds, ...lines.map((each) => each.id)].join("|");
  const levels = stacked ? stack(lines.map((each) => each.values)) : lines.map((each) => each.values);
  const data = [series.times, ...levels];
  const known = drawn.get(id);
  if (known?.place === place && known.shape === shape) {
    known.lines = lines;
    known.plot.setData(data);
  } else {
    known?.plot.destroy();
    const made = { place, shape, lines };
    made.plot = new UPlot(options(id, made, series, colours, { stacked, text, tick, range }), data, place);
    place.querySelector("canvas").setAttribute("aria-hidden", "true");
    drawn.set(id, made);
  }
  writeTable(document.getElementById(`table-${id}`), series, lines, text);
}

function stack(rows) {
  const sums = rows[0] ? rows[0].map(() => 0) : [];
  return rows.map((values) => values.map((value, index) => (value === null ? null : (sums[index] += value))));
}

function options(id, made, series, colours, { stacked, text, tick, range }) {
  const [grid, muted] = [resolved("grid"), resolved("muted")];
  const axis = { stroke: muted, grid: { stroke: grid, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const lines = made.lines.map((line) => {
    const colour = resolved(`m${colours.get(line.id) ?? 8}`);
    return {
      label: line.id,
      stroke: colour,
      width: stacked ? 1 : 2,
      fill: stacked ? colour : undefined,
      points: { show: series.times.length < 3 },
      paths: stacked ? UPlot.paths.stepped({ align: 1 }) : undefined,
      spanGaps: !stacked,
    };
  });
  const last = made.lines.length;
  return {
    width: Math.max(260, made.place.clientWidth),
    height: HEIGHT,
    cursor: { y: false, points: { show: !stacked } },
    legend: { show: false },
    hooks: { setCursor: [(plot) => readOut(id, made, series, plot.cursor.idx, text)] },
    series: [{}, ...lines],
    bands: stacked ? Array.from({ length: last - 1 }, (_, index) => ({ series: [index + 2, index + 1] })) : [],
    scales: { y: { range: range ? () => range : (_, low, high) => padded(low, high, stacked) } },
    axes: [
      { ...axis, space: 70, size: 30, values: (_, ticks, __, ___, step) => ticks.map((each) => tickTime(each, step)) },
      { ...axis, size: 62, values: (_, ticks) => ticks.map(tick) },
    ],
  };
}

function padded(low, high, fromZero) {
  if (low === null || high === null) return [0, 1];
  const room = (high - low || Math.abs(high) || 1) * 0.12;
  return [fromZero ? 0 : low - room, high + room];
}

function moment(seconds, bucket) {
  const style = bucket >= DAY ? { dateStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" };
  return new Date(seconds * 1000).toLocaleString("en-GB", style);
}

function tickTime(seconds, step) {
  const at = new Date(seconds * 1000);
  const midnight = at.getHours() === 0 && at.getMinutes() === 0;
  if (step >= DAY || midnight) return at.toLocaleDateString("en-GB", { day: "numeric", month: "short" });
  return at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
}

/** What stands at the cursor, in a line below the chart. */
function readOut(id, made, series, index, text) {
  const place = document.getElementById(`readout-${id}`);
  if (!place) return;
  const told = made.lines.filter((each) => each.values[index]).map((each) => `${each.id} ${text(each.values[index])}`);
  place.textContent = index === null || index === undefined ? "\u00a0" : [moment(series.times[index], series.seconds), ...told].join(" · ");
}

function writeTable(place, series, lines, text) {
  const filled = series.times.map((time, index) => [time, index]).filter(([, index]) => lines.some((each) => each.values[index]));
  const rows = filled.slice(-60).map(([time, index]) =>
    h("tr", {}, h("th", { scope: "row" }, moment(time, series.seconds)), lines.map((each) => h("td", { class: "n" }, text(each.values[index] ?? undefined)))));
  place.replaceChildren(
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "The chart as a table" },
      h("table", {},
        h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "From"), lines.map((each) => h("th", { scope: "col", class: "n" }, each.id)))),
        h("tbody", {}, rows))),
  );
}

/** The charts are as wide as their cards. */
export function resizeCharts() {
  for (const { place, plot } of drawn.values()) {
    if (place.isConnected) plot.setSize({ width: Math.max(260, place.clientWidth), height: HEIGHT });
  }
}

// Numbers, times and names as people read them. Each number also says exactly what the API said, in its value.

import { h } from "./dom.js";

const NONE = "–";
const counts = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** A number of the API: 64-bit ones come as strings, those that are 0 not at all. */
export function number(value) {
  return Number(value ?? 0);
}

/** The element of a value: people read `text`, programs the exact value. */
export function datum(value, text, attributes = {}) {
  return h("data", { value: value ?? "", ...attributes }, text);
}

export function count(value, attributes) {
  const n = number(value);
  return datum(n, n >= 1e6 ? compact.format(n) : counts.format(n), attributes);
}

export function usd(value, attributes) {
  return datum(value, usdText(value), attributes);
}

/** USD with three digits that say something, but cents where there are dollars. */
export function usdText(value) {
  if (value === undefined || value === null) return NONE;
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size === 0) return "$0";
  if (size >= 1000) return `${sign}$${counts.format(size)}`;
  if (size >= 1) return `${sign}$${size.toFixed(2)}`;
  if (size < 1e-9) return `${sign}$${size.toExponential(1)}`;
  return `${sign}$${size.toFixed(Math.min(12, 2 - Math.floor(Math.log10(size))))}`;
}

export function percent(value, attributes) {
  return datum(value, percentText(value), attributes);
}

export function percentText(value, signed = false) {
  if (value === undefined || value === null || Number.isNaN(value)) return NONE;
  const hundredths = value * 100;
  const size = Math.abs(hundredths);
  const digits = size === 0 || size >= 99.95 ? 0 : size >= 10 ? 1 : size >= 0.1 ? 2 : 3;
  return `${mark(hundredths, signed)}${size.toFixed(digits)}\u00a0%`;
}

export function quality(value, attributes) {
  return datum(value, qualityText(value), attributes);
}

export function qualityText(value, signed = false) {
  if (value === undefined || value === null || Number.isNaN(value)) return NONE;
  const shown = Math.abs(value).toFixed(3);
  return `${Number(shown) ? mark(value, signed) : ""}${shown}`;
}

function mark(value, signed) {
  return value < 0 ? "−" : signed && value > 0 ? "+" : "";
}

export function significant(value, digits = 3) {
  if (value === undefined || value === null) return NONE;
  if (Math.abs(value) >= 1000) return counts.format(value);
  return String(Number(value.toPrecision(digits)));
}

export function secondsText(value) {
  if (!value) return NONE;
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(value < 10 ? 2 : 1)} s`;
}

/** An interval with its level, "95 %: low to high". */
export function intervalText(level, low, high, text) {
  return `${Number(((level ?? 0.95) * 100).toPrecision(4))}\u00a0%: ${rangeText(low, high, text)}`;
}

/** A range, "low to high"; an end that is not known is a dash. */
export function rangeText(low, high, text) {
  return low === undefined && high === undefined ? "not known yet" : `${text(low)} to ${text(high)}`;
}

/** A point in time in the reader's own zone. */
export function time(stamp, attributes) {
  if (!stamp) return NONE;
  const shown = new Date(stamp).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
  return h("time", { datetime: stamp, ...attributes }, shown);
}

/** The last part of a resource's name: the id of a router, model or policy. */
export function idOf(name) {
  const parts = name.split("/");
  const kind = parts.lastIndexOf("models");
  return kind > 0 ? parts.slice(kind + 1).join("/") : parts[parts.length - 1];
}

/** A value of an enum without its prefix, in words. */
export function words(value, prefix) {
  return (value ?? "").replace(prefix, "").replaceAll("_", " ").toLowerCase();
}

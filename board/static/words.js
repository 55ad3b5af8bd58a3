// Numbers, times and terms as people read them.

import { language } from "./language.js";

const whole = new Intl.NumberFormat(language, { maximumFractionDigits: 0 });
const NONE = "–";

export const count = (n) => (n === null || n === undefined ? NONE : whole.format(n));

/** A measured value with at most `digits` significant digits. */
export function value(x, digits = 6) {
  if (x === null || x === undefined) return NONE;
  const size = Math.abs(x);
  if (size !== 0 && (size >= 1e7 || size < 1e-4)) return x.toExponential(digits - 2).replace(/\.?0+e/, "e");
  return String(Number(x.toPrecision(digits)));
}

/** A value and its unit; a no-break space between them, none before a degree or percent sign alone. */
export const quantity = (x, unit, digits) => value(x, digits) + (unit && x !== null && x !== undefined ? `\u00a0${unit}` : "");

export function bytes(n) {
  if (n === null || n === undefined) return NONE;
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (n >= 1000 && step < units.length - 1) [n, step] = [n / 1000, step + 1];
  return `${step ? n.toPrecision(3) : n}\u00a0${units[step]}`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)}\u00a0s`;
  if (seconds < 120) return `${Math.round(seconds)}\u00a0s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)}\u00a0min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)}\u00a0h`;
  return `${Math.round(seconds / 86400)}\u00a0d`;
}

const clock = new Intl.DateTimeFormat(language === "nl" ? "nl-NL" : "en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dated = new Intl.DateTimeFormat(language === "nl" ? "nl-NL" : "en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

/** Local time of day, with the date when it is not today. */
export function time(ms, now = Date.now()) {
  return new Date(ms).toDateString() === new Date(now).toDateString() ? clock.format(ms) : dated.format(ms);
}

export const exact = (ms) => new Date(ms).toISOString();

export const MARKS = { alarm: "▲", warning: "◆", pass: "✓", suspect: "◆", fail: "✕" };

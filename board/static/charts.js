// Control charts: a figure each, drawn by Plotly once it comes into view and whenever its points change.

import { $, h, put, sync } from "./dom.js";
import { t } from "./language.js";
import { to } from "./route.js";
import { rule } from "./rules.js";
import { MARKS, count, exact, quantity, time, value } from "./words.js";

const HEIGHT = 184; // px
const LARGE = 400; // px, of a chart that has a page for itself
const LABEL = 12; // px between two labels of limits, at least

let plotly = null;

/** Load the chart library when the first chart needs it, so that the page does not wait for 4.8 MB. */
function library() {
  plotly ??= new Promise((resolve, reject) => {
    const script = h("script", { src: "/static/plotly.min.js" });
    script.onload = () => resolve(globalThis.Plotly);
    script.onerror = () => { plotly = null; script.remove(); reject(new Error("the chart library did not load")); };
    document.head.append(script);
  });
  return plotly;
}

const known = new Map(); // id → row of the index
const points = new Map(); // id → columns
const visible = new Set();
let onVisible = () => {};

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const id = target.dataset.chart;
    if (!isIntersecting) visible.delete(id);
    else if (!visible.has(id)) {
      visible.add(id);
      onVisible(id);
      soon(id);
    }
  }
}, { rootMargin: "300px" });
const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => soon(target.dataset.chart)));

/** Tell `callback` the id of every chart that comes into view. */
export const whenVisible = (callback) => { onVisible = callback; };
export const isVisible = (id) => visible.has(id);

/** Show the index of charts; figures stay where they are. */
export function index(rows) {
  known.clear();
  for (const row of rows) known.set(row.id, row);
  sync($("chart-list"), rows.map(({ id, machine, path, signal, chart }) => ({ id, machine, path, signal, chart })), (c) => c.id, figure);
  for (const row of rows) figures(row);
  $("chart-none").hidden = rows.length > 0;
}

/** New points of a chart. */
export function data(id, columns) {
  points.set(id, columns);
  soon(id);
}

/** A chart that is no longer in the store. */
export const forget = (id) => points.delete(id);

function figure(c) {
  const plot = h("div", { class: "plot", role: "img", "data-chart": c.id });
  const node = h("figure", { "data-chart": c.id, "data-name": c.chart, "data-path": c.path, "data-signal": `${c.path}/${c.signal}` },
    h("figcaption", {},
      h("h3", { title: `${c.path}/${c.signal}` }, h("a", { href: to("chart", c.id) }, `${c.machine}/${c.signal === "_all" ? t("all signals") : c.signal}`), h("small", { title: c.chart }, ` ${short(c)}`)),
      h("p", { class: "now" }), h("p", { class: "limits" })), plot);
  watcher.observe(node);
  sizes.observe(plot);
  return node;
}

/** A chart without a name of its own is called after machine, signal and kind: the kind says it then. */
const short = ({ machine, signal, chart }) => {
  const prefix = `${machine} ${signal} `;
  return chart.startsWith(prefix) ? chart.slice(prefix.length) : chart;
};

const nodeOf = (id) => document.querySelector(`figure[data-chart="${CSS.escape(id)}"]`);
const beyond = (x, ucl, lcl) => (ucl !== null && x > ucl) || (lcl !== null && x < lcl);

/** The words under the name of a chart. */
function figures(row) {
  const node = nodeOf(row.id);
  const last = row.last;
  const out = beyond(last.statistic, last.ucl, last.lcl);
  const now = node.querySelector(".now");
  put(now, `${out ? "▲ " : ""}${quantity(last.statistic, row.unit)}`);
  now.title = exact(last.time);
  now.className = `now${out ? " alarm" : ""}`;
  now.dataset.value = String(last.statistic);
  put(node.querySelector(".limits"), last.version
    ? t("limits v{version} · {n} values", { version: last.version, n: count(row.points) })
    : t("learning limits · {n} values so far", { n: count(row.points) }));
  node.classList.toggle("learning", !last.version);
  Object.assign(node.dataset, {
    points: row.points, version: last.version,
    center: last.center ?? "", ucl: last.ucl ?? "", lcl: last.lcl ?? "",
  });
}

/** Plotly takes some markup in texts: keep ours plain. (Even its bold would be an inline style, which the policy forbids.) */
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
/** Plotly writes dates in UTC: shift them, so that they read as local time. */
const local = (ms) => ms - new Date(ms).getTimezoneOffset() * 60000;

function colors() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(["ink", "muted", "line", "data", "alarm", "warning", "limit"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

const waiting = new Set();
let drawing = false;

/** Draw a chart in one of the next frames: one a frame, so that the page stays smooth, and none that is out of view by then. */
function soon(id) {
  waiting.add(id);
  if (drawing) return;
  drawing = true;
  const one = async () => {
    const next = [...waiting].find((name) => visible.has(name));
    if (next === undefined) {
      waiting.clear();
      drawing = false;
      return;
    }
    waiting.delete(next);
    try { await draw(next); } finally { requestAnimationFrame(one); }
  };
  requestAnimationFrame(one);
}

async function draw(id) {
  const [row, columns] = [known.get(id), points.get(id)];
  const plot = nodeOf(id)?.querySelector(".plot");
  if (!row || !columns || !plot || !visible.has(id) || !plot.clientWidth) return;
  let Plotly;
  try {
    Plotly = await library();
  } catch (error) {
    put(plot, `${t("Not drawn:")} ${error.message}.`);
    return;
  }
  const { traces, layout, words } = compose(row, columns, plot.clientWidth, HEIGHT);
  plot.setAttribute("aria-label", words);
  await Plotly.react(plot, traces, layout, { displayModeBar: false, scrollZoom: false, doubleClick: "reset" });
  plot.dataset.drawn = columns.time.length;
}

/** Draw one chart large, to be zoomed by dragging; a double click shows all again. */
export async function large(plot, figure) {
  if (!figure.columns.time.length) return;
  const Plotly = await library();
  const { traces, layout, words } = compose(figure, figure.columns, plot.clientWidth || 800, LARGE);
  Object.assign(layout, { dragmode: "zoom" });
  layout.xaxis.fixedrange = layout.yaxis.fixedrange = false;
  plot.setAttribute("aria-label", words);
  await Plotly.react(plot, traces, layout, { displayModeBar: false, scrollZoom: false, doubleClick: "reset" });
  plot.dataset.drawn = figure.columns.time.length;
}

function compose(row, c, width, height) {
  const color = colors();
  const x = c.time.map(local);
  const out = c.statistic.map((y, i) => beyond(y, c.ucl[i], c.lcl[i]));
  const words = c.statistic.map((y, i) => `${quantity(y, plain(row.unit))}<br>${time(c.time[i])}${c.version[i] ? `<br>${t("limits")} v${c.version[i]}` : `<br>${t("learning")}`}`);
  const marked = new Map();
  for (const f of c.findings) {
    marked.set(f.row, [...(marked.get(f.row) ?? []), f]);
    words[f.row] += `<br>${MARKS[f.severity] ?? ""} ${plain(t(f.severity))}: ${plain(rule(f.rule))}${f.part ? `<br>${t("part")} ${plain(f.part)}` : ""} (${plain(t(f.state))})`;
  }
  const line = (name, y, style) => ({ name, x, y, mode: "lines", line: { shape: "hv", width: 1, ...style }, hoverinfo: "skip" });
  const rows = c.statistic.keys();
  const at = [...rows].filter((i) => out[i]);
  const rings = [...marked.keys()];
  const ringColor = rings.map((i) => (marked.get(i).every((f) => f.state === "cleared") ? color.muted : marked.get(i).some((f) => f.severity === "alarm") ? color.alarm : color.warning));
  const traces = [
    line("UCL", c.ucl, { color: color.limit, dash: "dash" }),
    line("LCL", c.lcl, { color: color.limit, dash: "dash" }),
    line("centre", c.center, { color: color.muted }),
    { name: "statistic", x, y: c.statistic, mode: "lines+markers", line: { color: color.data, width: 1.2 }, marker: { color: color.data, size: x.length > 150 ? 2.5 : 4 }, text: words, hoverinfo: "text" },
    { name: "beyond", x: at.map((i) => x[i]), y: at.map((i) => c.statistic[i]), mode: "markers", marker: { symbol: "square", size: 7, color: color.alarm }, hoverinfo: "skip" },
    { name: "findings", x: rings.map((i) => x[i]), y: rings.map((i) => c.statistic[i]), mode: "markers+text", marker: { symbol: "circle-open", size: 13, color: ringColor, line: { width: 1.6 } }, text: rings.map((i) => plain(marked.get(i).map((f) => f.rule).join(","))), textposition: "top center", textfont: { size: 10, color: ringColor }, hoverinfo: "skip", cliponaxis: false },
  ];
  const range = reach([...c.statistic, ...c.ucl, ...c.lcl, ...c.center]);
  const layout = {
    height, width, showlegend: false, hovermode: "closest", dragmode: false,
    margin: { l: 52, r: 86, t: 14, b: 22 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "inherit", size: 11, color: color.muted },
    xaxis: { type: "date", showgrid: false, zeroline: false, linecolor: color.line, ticks: "outside", ticklen: 3, tickcolor: color.line, tickangle: 0, nticks: width < 420 ? 4 : 6, fixedrange: true },
    yaxis: { range, gridcolor: color.line, zeroline: false, nticks: 4, tickformat: ".6~g", fixedrange: true },
    annotations: [...labels(row, range, color, height), ...versions(c, x, color)],
    hoverlabel: { bgcolor: color.ink, bordercolor: color.ink, font: { family: "inherit", size: 12, color: getComputedStyle(document.body).backgroundColor } },
  };
  const name = t("Control chart {chart} of {signal}", { chart: row.chart, signal: `${row.machine}/${row.signal}` });
  const limits = row.last.version
    ? t("centre {center}, limits {lcl} to {ucl} {unit}", { center: value(row.last.center), lcl: value(row.last.lcl), ucl: value(row.last.ucl), unit: row.unit })
    : t("still learning its limits");
  const sums = t("{out} of {n} points beyond a limit, {findings} findings.", { out: at.length, n: x.length, findings: c.findings.length });
  return { traces, layout, words: `${name}: ${t("newest")} ${quantity(row.last.statistic, row.unit)}, ${limits}; ${sums}` };
}

/** From the least to the most of what is shown, with some air. */
function reach(values) {
  const there = values.filter((v) => v !== null && Number.isFinite(v));
  const [low, high] = [there.reduce((a, b) => Math.min(a, b)), there.reduce((a, b) => Math.max(a, b))];
  const air = (high - low || Math.abs(high) * 0.01 || 1) * 0.12;
  return [low - air, high + air];
}

/** The newest limits, written at the right edge, pushed apart where they would overlap. */
function labels(row, [low, high], color, height) {
  const { ucl, center, lcl } = row.last;
  const wanted = [["UCL", ucl], ["CL", center], ["LCL", lcl]].filter(([, y]) => y !== null);
  const pixel = (high - low) / (height - 36);
  let last = Infinity;
  return wanted.map(([name, y]) => {
    const spot = Math.min(y, last - LABEL * pixel);
    last = spot;
    return { x: 1, xref: "paper", xanchor: "left", xshift: 5, y: spot, yanchor: "middle", showarrow: false, text: `${name} ${value(y)}`, font: { size: 10.5, color: name === "CL" ? color.muted : color.limit } };
  });
}

/** A word where new limits begin. */
function versions(c, x, color) {
  return c.version.flatMap((v, i) => (i > 0 && v !== c.version[i - 1]
    ? [{ x: x[i], y: 1, yref: "paper", yanchor: "bottom", yshift: -2, showarrow: false, text: `│ v${v}`, xanchor: "left", xshift: -3, font: { size: 10, color: color.muted } }] : []));
}

for (const query of ["(prefers-color-scheme: dark)"]) {
  matchMedia(query).addEventListener("change", () => visible.forEach(soon));
}

// Everything but the charts: what each answer of the board looks like as elements.

import { $, h, put, sync } from "./dom.js";
import { t } from "./language.js";
import { to } from "./route.js";
import { rule } from "./rules.js";
import { MARKS, bytes, count, duration, exact, quantity, time } from "./words.js";

const FIRST_SIGNALS = 8; // of a machine, before the rest folds away
const raw = (x) => (x === null || x === undefined ? "" : String(x));
const stamp = (ms) => h("time", { datetime: exact(ms), title: exact(ms) }, time(ms));
const age = (ms) => h("time", { "data-age": ms, datetime: exact(ms), title: exact(ms) });
const mark = (name) => h("span", { class: "mark", "aria-hidden": "true" }, MARKS[name] ?? "");

export function machines(rows) {
  sync($("machine-list"), rows, (m) => m.path, machine);
  plan(rows);
  $("machine-none").hidden = rows.length > 0;
  const running = rows.filter((m) => /^(running|run|execute|busy|active|printing)$/i.test(m.state)).length;
  put($("sum-machines"), rows.length ? `${count(rows.length)}` : "0");
  $("sum-machines").dataset.note = rows.some((m) => m.state) ? t("{n} running", { n: running }) : "";
}

/** The hall as a plan: its lines, each with its machines in a row. */
function plan(rows) {
  const lines = new Map();
  for (const m of rows) {
    const line = m.path.split("/").slice(0, -1).join(" / ");
    lines.set(line, [...(lines.get(line) ?? []), { path: m.path, machine: m.machine, state: m.state, open: m.open, alarms: m.alarms }]);
  }
  $("plan").hidden = rows.length < 2;
  sync($("plan"), [...lines].map(([line, there]) => ({ line, there })), (l) => l.line, ({ line, there }) =>
    h("section", { class: "floor" }, h("h3", {}, line), h("ul", {}, there.map(tile))));
}

function tile(m) {
  const style = m.alarms ? "alarm" : m.open ? "warning" : "";
  const words = m.open ? t("{n} open", { n: m.open }) : m.state || t("state unknown");
  return h("li", {}, h("a", { class: `tile ${style}`, href: to("machine", m.path), "data-path": m.path },
    h("strong", {}, m.machine), h("span", {}, style ? `${MARKS[style]} ` : "", words)));
}

function machine(m) {
  const open = m.open
    ? h("p", { class: m.alarms ? "alarm" : "warning" }, mark(m.alarms ? "alarm" : "warning"), ` ${m.open === 1 ? t("1 open finding") : t("{n} open findings", { n: m.open })}`)
    : h("p", { class: "quiet" }, t("no open findings"));
  const first = m.signals.slice(0, FIRST_SIGNALS).map(signal);
  const rest = m.signals.slice(FIRST_SIGNALS).map(signal);
  const left = m.signal_count - m.signals.length;
  return h("li", { class: "machine", "data-path": m.path },
    h("header", {},
      h("h3", { title: m.path }, h("a", { href: to("machine", m.path) }, m.machine)),
      h("p", { class: "state", "data-state": m.state }, m.state || t("state unknown"))),
    h("div", { class: "line" }, open, h("p", { class: "quiet" }, m.last_data === null ? t("no data yet") : `${t("data")} `, m.last_data === null ? null : age(m.last_data))),
    h("dl", { class: "signals" }, first),
    rest.length ? h("details", {}, h("summary", {}, t("{n} more signals", { n: rest.length + left })), h("dl", { class: "signals" }, rest)) : null);
}

/** A name that may wrap after an underscore or a dot. */
const breakable = (name) => name.split(/(?<=[_.])/).flatMap((piece, i) => (i ? [h("wbr"), piece] : [piece]));

function signal(s) {
  const out = s.value !== null && s.value !== undefined && ((s.usl !== null && s.value > s.usl) || (s.lsl !== null && s.value < s.lsl));
  const shown = s.time === undefined ? "–" : s.quality === "Bad" ? t("Bad") : s.text || quantity(s.value, s.unit, 5);
  const note = s.quality === "Uncertain" ? ` ${t("uncertain")}` : out ? ` ${t("out of spec")}` : "";
  return h("div", { class: s.quality === "Bad" || out ? "warning" : null },
    h("dt", {}, breakable(s.name)),
    h("dd", { "data-signal": s.name, "data-value": raw(s.text || s.value), title: s.time === undefined ? null : exact(s.time) },
      shown, note ? h("small", {}, note) : null));
}

let announced = null; // ids of the findings that were shown before

export function findings(data) {
  sync($("finding-list"), data.rows, (f) => f.id, finding);
  $("finding-none").hidden = data.rows.length > 0;
  more($("finding-more"), data, "findings");
  put($("sum-findings"), count(data.open) + (data.capped ? "+" : ""));
  const alarms = data.rows.filter((f) => f.state !== "cleared" && f.severity === "alarm").length;
  $("sum-findings").dataset.note = data.open ? (alarms === 1 ? t("1 alarm") : t("{n} alarms", { n: alarms })) : "";
  $("sum-findings").className = alarms ? "alarm" : data.open ? "warning" : "";
  const fresh = announced === null ? [] : data.rows.filter((f) => f.state === "raised" && !announced.has(f.id));
  announced = new Set(data.rows.map((f) => f.id));
  if (fresh.length) {
    const f = fresh[0];
    const others = fresh.length > 1 ? t(", and {n} more", { n: fresh.length - 1 }) : "";
    put($("news"), t("New {severity} on {machine}, {signal}: {rule}{others}.", { severity: t(f.severity), machine: f.machine, signal: f.signal, rule: rule(f.rule), others }));
  }
}

function finding(f) {
  const cleared = f.state === "cleared";
  const facts = [
    h("span", {}, `${f.machine}/${f.signal}`),
    h("span", {}, h("span", { "data-value": raw(f.statistic) }, quantity(f.statistic, f.unit)), ` ${t("against")} `, h("span", { "data-value": raw(f.limit) }, quantity(f.limit, f.unit))),
    f.part ? h("span", {}, `${t("part")} `, h("a", { href: to("part", f.part) }, f.part)) : null,
    h("span", {}, t("chart {chart}, limits v{version}", { chart: f.chart, version: f.limits_version })),
  ];
  return h("li", { class: cleared ? "cleared" : f.severity, "data-id": f.id, "data-path": f.path, "data-state": f.state },
    h("p", { class: "head" }, mark(f.severity), h("strong", {}, ` ${t(f.severity)}`), h("span", { class: "state" }, t(f.state)), stamp(f.time)),
    h("p", { class: "rule" }, h("a", { href: to("finding", f.id) }, rule(f.rule))),
    f.detail ? h("p", { class: "detail" }, f.detail) : null,
    h("p", { class: "facts" }, facts));
}

export function parts(data) {
  sync($("part-list"), data.rows, (p) => `${p.path}/${p.id}`, part);
  $("part-none").hidden = data.rows.length > 0;
  more($("part-more"), data, "parts");
  put($("sum-parts"), count(data.total) + (data.capped ? "+" : ""));
  $("sum-parts").dataset.note = data.total ? t("{pass} pass, {suspect} suspect, {fail} fail", { pass: count(data.pass), suspect: count(data.suspect), fail: count(data.fail) }) : "";
}

function part(p) {
  const lots = Object.entries(p.genealogy).map(([name, text]) => `${name} ${text}`).join(", ");
  // The roles hold where a narrow page lays the row out as a block.
  return h("tr", { role: "row", class: p.verdict, "data-id": p.id, "data-path": p.path, "data-verdict": p.verdict },
    h("th", { role: "rowheader", scope: "row", title: lots || null }, h("a", { href: to("part", p.id) }, p.id), p.revision > 1 ? h("small", {}, ` rev. ${p.revision}`) : null),
    h("td", { role: "cell", class: "verdict" }, mark(p.verdict), ` ${t(p.verdict)}`),
    h("td", { role: "cell", class: "n", "data-value": raw(p.score) }, p.score.toFixed(2)),
    h("td", { role: "cell", class: p.reasons.length ? "reasons" : "reasons none" }, p.reasons.length ? p.reasons.join("; ") : "–"),
    h("td", { role: "cell" }, p.machine),
    h("td", { role: "cell", class: "n" }, stamp(p.time)));
}

const STATES = [["active", "alarm", t("active")], ["inactive", "", t("no longer active")]];

/** In words, and never by colour alone: is it so now, and has somebody seen it? */
function conditionState(e) {
  const [, style, word] = e.active === null ? ["", "", t("reported")] : STATES[e.active ? 0 : 1];
  const seen = e.acknowledged === null ? "" : e.acknowledged ? t(", acknowledged") : t(", not acknowledged");
  return [e.active && !e.acknowledged ? style : e.acknowledged === false ? "warning" : "", `${word}${seen}`];
}

export function events(data) {
  $("events").hidden = data.total === 0 && data.conditions.length === 0;
  sync($("condition-list"), data.conditions, (e) => `${e.path}/${e.condition}/${e.branch}`, condition);
  $("condition-none").hidden = data.conditions.length > 0;
  $("conditions").hidden = data.conditions.length === 0;
  sync($("event-list"), data.rows, (e) => `${e.path}/${e.ns}`, event);
  more($("event-more"), data, "events");
}

function condition(e) {
  const [style, words] = conditionState(e);
  return h("tr", { role: "row", "data-path": e.path, "data-condition": e.condition, "data-active": raw(e.active), "data-acknowledged": raw(e.acknowledged) },
    h("th", { role: "rowheader", scope: "row", title: e.condition }, e.name || e.source, e.branch ? h("small", {}, ` ${t("earlier")}`) : null),
    h("td", { role: "cell", class: `what ${style}` }, style ? `${MARKS[style]} ` : "", words),
    h("td", { role: "cell", class: "n", "data-value": raw(e.severity) }, count(e.severity)),
    h("td", { role: "cell", class: "message" }, e.message, e.comment ? h("small", {}, ` “${e.comment}”`) : null),
    h("td", { role: "cell" }, `${e.machine}/${e.source}`),
    h("td", { role: "cell", class: "n" }, stamp(e.since)));
}

function event(e) {
  const words = e.condition ? conditionState(e)[1] : t("event");
  return h("tr", { role: "row", "data-path": e.path, "data-id": e.id },
    h("td", { role: "cell" }, stamp(e.time)),
    h("td", { role: "cell", class: "n" }, count(e.severity)),
    h("td", { role: "cell", class: "message", title: e.kind }, e.message || e.kind),
    h("td", { role: "cell" }, `${e.machine}/${e.source}`),
    h("td", { role: "cell" }, words));
}

function more(node, data, what) {
  const left = data.total - data.rows.length;
  node.hidden = left <= 0 && !data.capped;
  const [shown, all] = [data.rows.length, count(data.total)];
  put(node, data.capped ? t("The newest {shown} of more than {all} {what}.", { shown, all, what: t(what) }) : t("The newest {shown} of {all} {what}.", { shown, all, what: t(what) }));
}

const COUNTS = ["received", "committed", "stored", "kept", "bad", "duplicate", "rejected", "overflow", "dead", "lost"];
const TROUBLE = new Set(["rejected", "overflow", "dead", "lost"]);

function counts(row) {
  return COUNTS.map((name) => h("td", {
    class: `n${TROUBLE.has(name) && row[name] > 0 ? " alarm" : ""}`, "data-count": name, "data-value": raw(row[name]),
  }, TROUBLE.has(name) && row[name] > 0 ? "▲ " : "", name === "lost" ? lost(row) : count(row[name])));
}

/** What was lost, in the agent's words where a bare number would claim too much. */
const lost = (row) => (row.loss && row.loss !== `${row.lost} lost` ? row.loss : count(row.lost));

export function trust(data) {
  put($("agent"), data.agent);
  document.title = data.agent ? `${data.agent} · Fieldlab` : "Fieldlab";
  const sure = data.guarantees.every((g) => !g.loss || g.loss === `${g.lost} lost`);
  const known = data.totals.lost === 0 && !sure ? t("none known") : count(data.totals.lost);
  const total = { guarantee: t("all"), signals: data.signal_count, ...data.totals, loss: known };
  sync($("guarantee-list"), [...data.guarantees, total], (g) => g.guarantee, (g) =>
    h("tr", { class: g === total ? "total" : null, "data-guarantee": g.guarantee },
      h("th", { scope: "row" }, g.guarantee || t("not known")), h("td", { class: "n" }, count(g.signals)), counts(g)));
  put($("signal-count"), `(${count(data.signal_count)})`);
  put($("sum-kept"), count(data.totals.kept));
  put($("sum-lost"), known);
  $("sum-lost").dataset.value = raw(data.totals.lost);
  $("sum-lost").className = data.totals.lost > 0 ? "alarm" : "";
  $("sum-lost").dataset.note = data.guarantees.filter((g) => g.guarantee).map((g) => `${g.signals} ${g.signals === 1 ? t("signal") : t("signals")} ${g.guarantee}`).join(", ");
  sync($("store-list"), data.stores, (s) => s.name, store);
  sync($("cursor-list"), data.consumers, (c) => c.name, cursor);
  $("cursor-none").hidden = data.consumers.length > 0;
  sync($("source-list"), data.sources, (s) => s.name, source);
  $("source-none").hidden = data.sources.length > 0;
  journal(data.journal);
}

export function ledger(rows) {
  sync($("signal-list"), rows, (r) => r.path, (r) =>
    h("tr", { "data-signal": r.path }, h("th", { scope: "row", title: r.path }, r.signal), h("td", {}, r.guarantee || t("not known")), counts(r)));
}

const OUTCOMES = ["stored", "dead", "dropped", "waiting", "before"];

function store(s) {
  return h("tr", { "data-name": s.name }, h("th", { scope: "row" }, s.name), OUTCOMES.map((name) => {
    const bad = (name === "dead" || name === "dropped") && s[name] > 0;
    return h("td", { class: bad ? "n alarm" : "n", "data-count": name, "data-value": raw(s[name]) }, bad ? "▲ " : "", count(s[name]));
  }));
}

const GAP_MARKS = { open: "▲", ended: "◆", unverifiable: "◌", closed: "✓" };

export function gaps(data) {
  sync($("gap-list"), data.rows, (g) => g.id, gap);
  $("gap-none").hidden = data.total > 0;
  $("gap-table").hidden = data.rows.length === 0;
  const words = data.by_cause.map(({ cause, ...states }) =>
    `${t(cause.replaceAll("_", " "))}: ${Object.entries(states).map(([state, n]) => `${count(n)} ${t(state)}`).join(", ")}`);
  put($("gap-sum"), words.join(" · "));
  $("gap-sum").className = data.not_closed ? "warning" : "quiet";
  more($("gap-more"), data, "gaps");
}

function gap(g) {
  const [first, last] = [stamp(g.start), g.end === null ? t("goes on") : stamp(g.end)];
  const style = g.state === "open" ? "alarm" : g.state === "ended" ? "warning" : "";
  return h("tr", { "data-id": g.id, "data-state": g.state, "data-cause": g.cause },
    h("th", { scope: "row", title: g.path }, g.signal), h("td", {}, t(g.cause.replaceAll("_", " "))),
    h("td", { class: "n" }, first), h("td", { class: "n" }, last),
    h("td", { class: "n" }, g.end === null ? "–" : duration((g.end - g.start) / 1000)),
    h("td", { class: style }, h("span", { "aria-hidden": "true" }, GAP_MARKS[g.state] ?? ""), ` ${t(g.state)}`),
    h("td", { class: "n" }, count(g.recovered)), h("td", { class: g.lost ? "n alarm" : "n" }, g.lost ? `▲ ${count(g.lost)}` : "–"),
    h("td", {}, g.source), h("td", { class: "what" }, g.detail));
}

function cursor(c) {
  const [word, style] = c.error ? [`▲ ${c.error}`, "alarm"] : c.holding ? [`◆ ${t("holding: the journal is kept for it")}`, "warning"] : [t("working"), ""];
  return h("tr", { "data-name": c.name }, h("th", { scope: "row" }, c.name), h("td", { class: `what ${style}` }, word),
    h("td", { class: "n" }, duration(c.lag_seconds)),
    h("td", { class: "n", "data-value": raw(c.lag_readings) }, count(c.lag_readings)),
    h("td", { class: "n", "data-value": raw(c.lag_records) }, count(c.lag_records)),
    h("td", { class: "n", "data-value": raw(c.position) }, count(c.position)));
}

function source(s) {
  const missing = s.missing.length ? `◆ ${t("cannot read")} ${s.missing.join(", ")}` : "";
  const [word, style] = !s.connected ? [`▲ ${s.error || t("not connected")}`, "alarm"] : s.error ? [`◆ ${s.error}`, "warning"] : missing ? [missing, "warning"] : [t("connected"), ""];
  const signals = Array.isArray(s.signals) ? s.signals.length : s.signals;
  return h("tr", { "data-name": s.name }, h("th", { scope: "row" }, s.name, s.kind ? h("small", {}, ` ${s.kind}`) : null),
    h("td", { class: `what ${style}` }, word), h("td", { class: "n" }, count(signals)),
    h("td", { class: "n" }, s.last_data === null ? "–" : age(s.last_data)), h("td", { class: "address" }, s.url ?? ""));
}

function journal(j) {
  const known = Object.keys(j).length > 0;
  const room = j.max_bytes ? ` ${t("of")} ${bytes(j.max_bytes)}` : "";
  const trouble = [j.full ? `▲ ${t("Full.")}` : "", j.set_aside ? `▲ ${t("{n} damaged parts set aside.", { n: count(j.set_aside) })}` : "", j.error ? `▲ ${j.error}` : ""].filter(Boolean).join(" ");
  put($("journal"), known ? `${t("Journal: {bytes}, {records} records, newest at position {position}.", { bytes: `${bytes(j.bytes)}${room}`, records: count(j.records), position: count(j.position) })} ${trouble}` : "");
  $("journal").className = trouble ? "alarm" : "";
}

/** Bring every age up to date. `now` is the agent's clock, ms. */
export function tick(now) {
  for (const node of document.querySelectorAll("[data-age]")) {
    const seconds = (now - Number(node.dataset.age)) / 1000;
    put(node, seconds < 4.5 ? t("now") : t("{time} ago", { time: duration(seconds) }));
    node.classList.toggle("warning", seconds > 30);
  }
}

/** Show the rows of one machine only; an empty path shows all. */
export function only(path) {
  for (const id of ["machine-list", "chart-list", "finding-list", "part-list", "condition-list", "event-list"]) {
    for (const node of $(id).children) node.hidden = path !== "" && node.dataset.path !== path;
  }
  $("plan").classList.toggle("away", path !== "");
}

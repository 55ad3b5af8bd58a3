// The pages of one part, one finding and one chart.

import { large } from "./charts.js";
import { $, h, put } from "./dom.js";
import { t } from "./language.js";
import { to } from "./route.js";
import { advice, rule } from "./rules.js";
import { MARKS, exact, quantity, time, value } from "./words.js";

const HOUR = 3600e3;
const SPANS = [["15 min", HOUR / 4], ["1 h", HOUR], ["8 h", 8 * HOUR], ["24 h", 24 * HOUR], ["7 d", 168 * HOUR]];
// [code that the journal keeps, what people read]
const CAUSES = [["tool", "tool"], ["material", "material"], ["setting", "setting"], ["machine", "machine"], ["sensor", "sensor"],
  ["measurement", "measurement"], ["maintenance", "maintenance"], ["unknown", "not known"], ["false alarm", "false alarm"]];

const link = (kind, id, ...words) => h("a", { href: to(kind, id) }, words.length ? words : id);
const stamp = (ms) => h("time", { datetime: exact(ms), title: exact(ms) }, time(ms));
const table = (caption, heads, rows) => h("div", { class: "wide", role: "region", "aria-label": caption, tabindex: "0" },
  h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, heads.map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows)));

let showing = ""; // what was asked for last: a slow answer to an older question is not shown

/** Fetch `address` and show what `build` makes of it; null where the page is another by now. */
async function ask(name, address, build) {
  showing = name;
  const place = $("detail-body");
  try {
    const answer = await fetch(address);
    const data = await answer.json();
    if (showing !== name) return;
    if (!answer.ok) {
      place.replaceChildren(h("p", { class: "empty" }, answer.status === 404 ? t("Nothing is known by the name {name}.", { name }) : `▲ ${data.error}`));
      return;
    }
    place.replaceChildren(...build(data));
  } catch (error) {
    if (showing === name) place.replaceChildren(h("p", { class: "alarm" }, `▲ ${t("The agent does not answer.")} ${error.message}`));
  }
  place.dataset.shown = name;
}

/** Leave the page: nothing that still comes in is shown. */
export const leave = () => { showing = ""; $("detail-body").replaceChildren(); delete $("detail-body").dataset.shown; };

export function part(id) {
  put($("detail-title"), `${t("Part")} ${id}`);
  return ask(id, `/api/part/${encodeURIComponent(id)}`, (data) => [
    ...data.verdicts.map(verdict),
    data.events.length ? table(t("What happened to it"), [t("Time"), t("Event"), t("What"), t("Value"), t("Machine")], data.events.map((e) => event(e, e.other))) : null,
    data.used.length ? table(t("Where it went"), [t("Time"), t("Event"), t("What"), t("Value"), t("Machine")], data.used.map((e) => event(e, e.id))) : null,
  ].filter(Boolean));
}

function verdict(v) {
  const lots = Object.entries(v.genealogy);
  return h("article", { class: `card ${v.verdict}`, "data-revision": v.revision, "data-verdict": v.verdict },
    h("h3", {}, `${MARKS[v.verdict] ?? ""} ${t(v.verdict)} `, h("small", {}, `${t("revision")} ${v.revision}, ${t("score")} ${v.score.toFixed(2)}`)),
    h("p", { class: "facts" }, h("span", {}, link("machine", v.path, v.machine)), h("span", {}, stamp(v.time)), v.seconds === null ? null : h("span", {}, `${v.seconds.toFixed(1)} s`)),
    v.reasons.length ? h("ol", {}, v.reasons.map((reason) => h("li", {}, reason))) : h("p", { class: "quiet" }, t("No reason against it.")),
    lots.length ? h("dl", { class: "signals" }, lots.map(([name, text]) => h("div", {}, h("dt", {}, name), h("dd", {}, link("part", text))))) : null,
    v.features.length ? h("details", {}, h("summary", {}, t("What was judged")), h("dl", { class: "signals" },
      v.features.map((f) => h("div", {}, h("dt", {}, f.name), h("dd", {}, value(f.value)))))) : null);
}

function event(e, what) {
  return h("tr", {}, h("td", {}, stamp(e.time)), h("td", {}, t(e.event)), h("td", {}, what ? link("part", what) : "–"),
    h("td", { class: "n" }, e.value === null ? e.text || "–" : value(e.value)), h("td", {}, link("machine", e.path, e.machine)));
}

export function finding(id) {
  put($("detail-title"), `${t("Finding")} ${id}`);
  return ask(id, `/api/finding/${encodeURIComponent(id)}`, (data) => {
    const [first, last] = [data.revisions[0], data.revisions.at(-1)];
    put($("detail-title"), `${rule(first.rule)}: ${first.machine}/${first.signal}`);
    const plot = h("div", { class: "plot big", role: "img", id: "evidence" });
    const points = data.evidence.columns.time.length;
    if (points) queueMicrotask(() => large(plot, data.evidence));
    return [
      h("p", { class: "facts" },
        h("span", {}, `${MARKS[first.severity] ?? ""} ${t(first.severity)}, ${t(last.state)}`),
        h("span", {}, `${quantity(first.statistic, first.unit)} ${t("against")} ${quantity(first.limit, first.unit)}`),
        h("span", {}, link("machine", first.path, first.machine)),
        h("span", {}, first.chart.startsWith("_") ? null : link("chart", data.chart_id, `${t("chart")} ${first.chart}`), first.limits_version ? `, ${t("limits")} v${first.limits_version}` : null),
        first.part ? h("span", {}, `${t("Part")} `, link("part", first.part)) : null),
      first.detail ? h("p", { class: "detail" }, first.detail) : null,
      advice(first.rule) ? h("p", { class: "advice" }, advice(first.rule)) : null,
      points ? h("h3", {}, t("Evidence")) : null, points ? plot : null,
      table(t("Its life"), [t("Time"), t("State"), t("Words")], data.revisions.map((f) => h("tr", { "data-state": f.state },
        h("td", {}, stamp(f.time)), h("td", {}, t(f.state)), h("td", { class: "what" }, f.detail)))),
      last.state === "cleared" ? null : acknowledge(id, last.chart === "_trend"),
    ].filter(Boolean);
  });
}

/** A form that puts a person's word on a finding into the journal; `proposed`: it proposes something that may be done. */
function acknowledge(id, proposed) {
  const by = h("input", { id: "ack-by", name: "by", required: true, maxlength: 80, autocomplete: "name" });
  try { by.value = localStorage.getItem("by") ?? ""; } catch { /* no memory: type it again */ }
  const cause = h("select", { id: "ack-cause", name: "cause" }, CAUSES.map(([code, words]) => h("option", { value: code }, t(words))));
  const comment = h("input", { id: "ack-comment", name: "comment", maxlength: 500, autocomplete: "off" });
  const done = h("input", { id: "ack-done", name: "done", maxlength: 80, autocomplete: "off" });
  const said = h("p", { class: "quiet", role: "status" });
  const field = (node, words) => h("div", {}, h("label", { for: node.id }, t(words)), node);
  const form = h("form", { class: "card acknowledge", id: "acknowledge" }, h("h3", {}, t("Acknowledge")),
    field(by, "Your name"), field(cause, "Cause"), field(comment, "Comment"), proposed ? field(done, "What was done") : null,
    h("p", {}, h("button", { type: "submit", value: "acknowledge" }, t("Acknowledge")), " ", h("button", { type: "submit", value: "shelve" }, t("Shelve"))), said);
  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    try { localStorage.setItem("by", by.value); } catch { /* as above */ }
    const word = { id, by: by.value, cause: cause.value, comment: comment.value, done: done.value, action: submitted.submitter?.value ?? "acknowledge" };
    try {
      const answer = await fetch("/api/acknowledge", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(word) });
      put(said, answer.ok ? t("Kept. The list shows it in a moment.") : `▲ ${(await answer.text()).trim()}`);
      if (answer.ok) setTimeout(() => { if (showing === id) finding(id); }, 1500);
    } catch (error) {
      put(said, `▲ ${t("The agent does not answer.")} ${error.message}`);
    }
  });
  return form;
}

/** A chart over any time: the buttons move and widen its window; dragging over the picture zooms. */
export function chart(id, now) {
  put($("detail-title"), t("Control chart"));
  let [end, span] = [now + 60e3, 8 * HOUR];
  const show = () => ask(id, `/api/window/${encodeURIComponent(id)}?from=${end - span}&to=${end}`, (data) => {
    put($("detail-title"), `${data.machine}/${data.signal === "_all" ? t("all signals") : data.signal}, ${data.chart}`);
    const plot = h("div", { class: "plot big", role: "img", id: "evidence" });
    queueMicrotask(() => large(plot, data));
    const button = (words, act, on = false) => {
      const node = h("button", { type: "button", "aria-pressed": on ? "true" : "false" }, words);
      node.addEventListener("click", () => { act(); show(); });
      return node;
    };
    const versions = new Map();
    data.columns.version.forEach((v, i) => { if (v) versions.set(v, [...(versions.get(v) ?? [i]).slice(0, 1), i]); });
    const c = data.columns;
    return [
      h("p", { class: "tools", role: "group", "aria-label": t("Time shown") },
        SPANS.map(([words, ms]) => button(words, () => { span = ms; }, span === ms)),
        button(t("← earlier"), () => { end -= span / 2; }), button(t("later →"), () => { end = Math.min(now + 60e3, end + span / 2); }), button(t("now"), () => { end = now + 60e3; })),
      c.time.length ? plot : h("p", { class: "empty" }, t("No points in this time.")),
      data.left_out ? h("p", { class: "more" }, t("The newest {n} points; {left} older ones are left out.", { n: c.time.length, left: data.left_out })) : null,
      c.findings.length ? table(t("Findings"), [t("Time"), t("Rule"), t("State"), t("Part")], c.findings.map((f) => h("tr", {},
        h("td", {}, link("finding", f.id, time(c.time[f.row]))), h("td", {}, rule(f.rule)), h("td", {}, t(f.state)), h("td", {}, f.part ? link("part", f.part) : "–")))) : null,
      versions.size ? table(t("Versions of its limits"), [t("Version"), t("From"), "LCL", t("centre"), "UCL"], [...versions].map(([v, [i]]) => h("tr", { "data-version": v },
        h("td", {}, `v${v}`), h("td", {}, stamp(c.time[i])), h("td", { class: "n" }, quantity(c.lcl[i], data.unit)), h("td", { class: "n" }, quantity(c.center[i], data.unit)), h("td", { class: "n" }, quantity(c.ucl[i], data.unit))))) : null,
    ].filter(Boolean);
  });
  return show();
}

// The page: follows the stream of changes and asks for what changed and is looked at.

import * as charts from "./charts.js";
import * as detail from "./detail.js";
import { $, put } from "./dom.js";
import { choose, language, t, translate } from "./language.js";
import * as panels from "./panels.js";
import * as route from "./route.js";
import * as search from "./search.js";
import { follow } from "./stream.js";
import { time } from "./words.js";

const AT_ONCE = 4; // requests under way

translate(document.body);

const show = {
  machines(rows) {
    panels.machines(rows);
    search.tell("machine", rows, (m) => m.path, (m) => m.path);
  },
  findings: panels.findings,
  parts(data) {
    panels.parts(data);
    search.tell("part", data.rows, (p) => p.id, (p) => p.id);
  },
  alarms: panels.events,
  charts(rows) {
    charts.index(rows);
    search.tell("chart", rows, (c) => c.id, (c) => `${c.machine}/${c.signal} ${c.chart}`);
  },
  trust: panels.trust,
  ledger: panels.ledger,
  gaps: panels.gaps,
};

const newest = new Map(); // section → tag that the store has now
const have = new Map(); // section → tag that is on the page
const busy = new Set();
let offset = 0; // the agent's clock minus ours, ms
let tick = null;
let machine = ""; // whose rows are shown; empty for all

const isChart = (name) => name.startsWith("charts/");
const wanted = (name) => {
  if (name === "ledger") return $("signals").open;
  return isChart(name) ? charts.isVisible(name.slice(7)) : true;
};

function next() {
  for (const [name, tag] of newest) {
    if (busy.size >= AT_ONCE) return;
    if (have.get(name) !== tag && !busy.has(name) && wanted(name)) load(name);
  }
}

async function load(name) {
  busy.add(name);
  try {
    const answer = await fetch(`/api/${name}`);
    if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
    const data = await answer.json();
    const tag = (answer.headers.get("ETag") ?? "").replace(/^W\/|"/g, "");
    have.set(name, tag);
    if (newest.has(name)) newest.set(name, tag); // the answer may be newer than the last tick
    if (isChart(name)) charts.data(name.slice(7), data);
    else show[name](data);
    panels.only(machine);
    panels.tick(Date.now() + offset);
  } catch (error) {
    have.delete(name);
    if (!(error instanceof TypeError)) console.warn(error); // a TypeError is a lost link, which the page shows
    await new Promise((resolve) => setTimeout(resolve, 1000));
  } finally {
    busy.delete(name);
    next();
  }
}

function onTick(message) {
  tick = message;
  offset = message.time - Date.now();
  for (const [name, tag] of Object.entries(message.changed)) newest.set(name, tag);
  for (const name of message.gone) {
    newest.delete(name);
    have.delete(name);
    if (isChart(name)) charts.forget(name.slice(7));
  }
  next();
}

function onLink(live) {
  const error = live && tick?.error;
  const state = !live ? "stale" : error ? "failing" : "live";
  document.body.dataset.link = state;
  put($("link-text"), t(state));
  const since = tick?.read ? ` ${t("What you see is from {time}.", { time: time(tick.read) })}` : "";
  $("banner").hidden = state === "live";
  put($("banner"), state === "stale" ? `▲ ${t("No live data: the agent does not answer. Trying again.")}${since}` : error ? `▲ ${t("The store cannot be read:")} ${tick.error}.${since}` : "");
}

/** Show the page that the address asks for, and take the reader there. */
function page({ kind, id }) {
  const overview = kind === "hall" || kind === "machine";
  machine = kind === "machine" ? id : "";
  $("hall").hidden = $("summary").hidden = !overview;
  $("detail").hidden = overview;
  $("where").hidden = kind === "hall";
  put($("where-now"), kind === "machine" ? id : t({ part: "Part", finding: "Finding", chart: "Control chart" }[kind] ?? ""));
  panels.only(machine);
  if (overview) detail.leave();
  else if (kind === "part") detail.part(id);
  else if (kind === "finding") detail.finding(id);
  else detail.chart(id, Date.now() + offset);
  if (kind !== "hall") scrollTo(0, 0);
  if (!overview) $("detail").focus({ preventScroll: true });
}

$("language").textContent = language === "nl" ? "English" : "Nederlands";
$("language").lang = language === "nl" ? "en" : "nl";
$("language").addEventListener("click", () => choose(language === "nl" ? "en" : "nl"));
search.start();
charts.whenVisible(() => next());
route.follow(page);
$("signals").addEventListener("toggle", next);
setInterval(() => {
  const now = Date.now() + offset;
  panels.tick(now);
  put($("clock"), time(now));
}, 1000);
follow("/api/events", onTick, onLink);

// The page: follows the stream of changes and asks for what changed and is looked at.

import * as charts from "./charts.js";
import { $, put } from "./dom.js";
import * as panels from "./panels.js";
import { follow } from "./stream.js";
import { time } from "./words.js";

const AT_ONCE = 4; // requests under way

const show = {
  machines: panels.machines,
  findings: panels.findings,
  parts: panels.parts,
  alarms: panels.events,
  charts: charts.index,
  trust: panels.trust,
  ledger: panels.ledger,
  gaps: panels.gaps,
};

const newest = new Map(); // section → tag that the store has now
const have = new Map(); // section → tag that is on the page
const busy = new Set();
let offset = 0; // the agent's clock minus ours, ms
let tick = null;

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
  put($("link-text"), state);
  const since = tick?.read ? ` What you see is from ${time(tick.read)}.` : "";
  $("banner").hidden = state === "live";
  put($("banner"), state === "stale" ? `▲ No live data: the agent does not answer. Trying again.${since}` : error ? `▲ The store cannot be read: ${tick.error}.${since}` : "");
}

charts.whenVisible(() => next());
$("signals").addEventListener("toggle", next);
setInterval(() => {
  const now = Date.now() + offset;
  panels.tick(now);
  put($("clock"), time(now));
}, 1000);
follow("/api/events", onTick, onLink);

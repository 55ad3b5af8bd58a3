// Finds a part by its id, or a machine or chart by its name.

import { $, h } from "./dom.js";
import { to } from "./route.js";

const MOST = 12;
let known = []; // {words, kind, id}

/** What can be found without asking the store. */
export function tell(kind, rows, idOf, wordsOf) {
  known = [...known.filter((k) => k.kind !== kind), ...rows.map((row) => ({ kind, id: idOf(row), words: wordsOf(row) }))];
}

function matches(text) {
  const wanted = text.trim().toLowerCase();
  return wanted ? known.filter((k) => k.words.toLowerCase().includes(wanted)).slice(0, MOST) : [];
}

/** Show suggestions as `input` changes, and go where the reader chooses. A text that fits nothing is asked for as a part. */
export function start() {
  const [form, input, list] = [$("search"), $("search-text"), $("search-list")];
  input.addEventListener("input", () => list.replaceChildren(...matches(input.value).map((k) => h("option", { value: k.words }))));
  form.addEventListener("submit", (submitted) => {
    submitted.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    const exact = known.find((k) => k.words.toLowerCase() === text.toLowerCase());
    const found = matches(text);
    const hit = exact ?? (found.length === 1 ? found[0] : null);
    location.hash = hit ? to(hit.kind, hit.id) : to("part", text);
    input.value = "";
  });
  addEventListener("keydown", (pressed) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "");
    if (pressed.key === "/" && !typing) { pressed.preventDefault(); input.focus(); }
    if (pressed.key === "Escape" && !typing && location.hash.length > 2) location.hash = "#/";
  });
}

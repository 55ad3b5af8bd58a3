// English or Dutch: the browser's language, or what was chosen on the page.

import nl from "./nl.js";

const stored = (() => { try { return localStorage.getItem("language"); } catch { return null; } })();
export const language = stored ?? (navigator.language.toLowerCase().startsWith("nl") ? "nl" : "en");
const words = language === "nl" ? nl : {};

/** A text in the reader's language; {name} is replaced by `values.name`. What has no translation stays English. */
export function t(text, values = {}) {
  return (words[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** Choose a language, and show the page in it. */
export function choose(name) {
  try { localStorage.setItem("language", name); } catch { /* a browser that keeps nothing: for this page only */ }
  location.reload();
}

const ATTRIBUTES = ["aria-label", "placeholder", "title"];

/** Translate what the page was written with. */
export function translate(root) {
  document.documentElement.lang = language;
  if (language === "en") return;
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.data.trim().replace(/\s+/g, " ");
    if (text && words[text]) node.data = node.data.replace(/\S[\s\S]*\S|\S/, words[text]);
  }
  for (const node of root.querySelectorAll(ATTRIBUTES.map((name) => `[${name}]`).join(","))) {
    for (const name of ATTRIBUTES) {
      const text = node.getAttribute(name);
      if (text && words[text]) node.setAttribute(name, words[text]);
    }
  }
}

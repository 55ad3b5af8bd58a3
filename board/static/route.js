// Which page is shown: the hall, a machine, a chart, a part or a finding. The address after # says it, so links and Back work.

const KINDS = new Set(["machine", "chart", "part", "finding"]);

/** @returns {{kind: string, id: string}} `hall` with an empty id for everything unknown. */
export function current() {
  const [, kind, ...rest] = location.hash.replace(/^#/, "").split("/");
  const id = rest.map((piece) => { try { return decodeURIComponent(piece); } catch { return piece; } }).join("/");
  return KINDS.has(kind) && id ? { kind, id } : { kind: "hall", id: "" };
}

/** The address of a page. */
export const to = (kind, id) => `#/${kind}/${String(id).split("/").map(encodeURIComponent).join("/")}`;

/** Call `show` now and whenever the page changes. */
export function follow(show) {
  addEventListener("hashchange", () => show(current()));
  show(current());
}

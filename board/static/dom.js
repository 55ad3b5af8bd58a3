// Builds and updates elements. Text goes in as text nodes only, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element: h("td", {class: "n", title: "…"}, "text", child, …); null children and properties are left out. */
export function h(tag, properties, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const shown = new WeakMap(); // element → the JSON it was built from

/** Make `parent` show `rows`, in order, rebuilding only the elements whose row changed. */
export function sync(parent, rows, keyOf, build) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const row of rows) {
    const key = String(keyOf(row));
    const text = JSON.stringify(row);
    let node = old.get(key);
    old.delete(key);
    if (node === undefined || shown.get(node) !== text) {
      const made = build(row);
      made.dataset.key = key;
      shown.set(made, text);
      if (node !== undefined) {
        if (place === node) place = made;
        node.replaceWith(made);
      }
      node = made;
    }
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
  }
  for (const node of old.values()) node.remove();
}

/** Set text only when it differs, so that screen readers and selections are left in peace. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

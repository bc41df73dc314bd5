// Building and changing the page. All text goes through textContent: what stands in a configuration is never markup.

import { parts, whole } from "./format.js";

// el makes an element: el("td", {class: "num"}, child, "text").
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) e.setAttribute(name, value);
  e.append(...children);
  return e;
}

export const $ = id => document.getElementById(id);

// say changes a text only when it is another one, so that a selection stays and nothing is laid out for nothing.
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export function mark(e, className) {
  if (e.className !== className) e.className = className;
}

// keyed makes the children of parent those of items, in their order: made once for each key, changed in place afterwards, and moved only if they must be.
export function keyed(parent, items, key, make, change, skip = 0) {
  const old = parent.keyed ??= new Map(), now = new Map();
  let place = parent.children[skip] ?? null;
  for (const item of items) {
    const k = key(item);
    if (now.has(k)) continue;
    const e = old.get(k) ?? make(item);
    old.delete(k);
    now.set(k, e);
    change(e, item);
    if (e === place) place = place.nextElementSibling;
    else parent.insertBefore(e, place);
  }
  for (const e of old.values()) e.remove();
  parent.keyed = now;
}

// row is a table row with a cell for each heading; those with a label are numbers.
export function row(className, ...labels) {
  return el("tr", { role: "row", class: className }, ...labels.map((label, i) => {
    const hides = label?.startsWith("*") ? " pk" : "";
    const cell = el("td", label ? { role: "cell", class: "num" + hides, "data-label": label.replace("*", "") } : { role: "cell" });
    if (label) cell.append(el("span"), el("span", { class: "si" }));
    return cell;
  }));
}

// rate puts a number a second into a cell, with k or M set apart so that digits stand below digits.
export function rate(cell, x) {
  const [n, k] = parts(x);
  say(cell.firstChild, n);
  say(cell.lastChild, k);
  cell.classList.toggle("zero", n === "0");
}

export function count(cell, n) {
  say(cell.firstChild, whole(n));
  cell.classList.toggle("zero", !n);
}

// text puts what is no number into a number's cell.
export function text(cell, s) {
  say(cell.firstChild, s);
}

// pill is a state: a dot for the eye, a word for everybody.
export function pill() {
  return el("span", { class: "pill" }, el("span", { class: "dot" }), el("span"));
}

export function setPill(p, state, word = state.replace("_", " ")) {
  mark(p, "pill " + state);
  say(p.lastChild, word);
}

"use strict";
// Patching: only what differs is touched, so that selection, focus, scrolling and open folds stay.

const touched = new WeakSet(); // folds that the reader opened or closed
document.addEventListener("click", (event) => {
  const summary = event.target.closest("summary");
  if (summary) touched.add(summary.parentNode);
});

function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) { old.replaceWith(fresh.cloneNode(true)); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) { if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue; return; }
  if (old.dataset.own !== undefined) return; // script fills it
  const own = (name) => (name === "open" && touched.has(old)) || (name === "title" && old.nodeName === "TIME") || name === "aria-busy";
  for (const { name, value } of fresh.attributes) if (!own(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!own(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  patchChildren(old, fresh);
}

// What is known by its id, or among many of a kind by where it leads.
const keyOf = (node) => node.id || (/^(details|svg)$/.test(node.parentNode?.localName) && node.getAttribute?.("href")) || "";

function patchChildren(old, fresh) {
  const wanted = new Set([...fresh.children].map(keyOf).filter(Boolean));
  for (const child of [...old.children]) if (keyOf(child) && !wanted.has(keyOf(child))) child.remove();
  const known = new Map([...old.children].filter(keyOf).map((child) => [keyOf(child), child]));
  let place = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    const key = keyOf(want), have = key ? known.get(key) : place && !keyOf(place) && place.nodeName === want.nodeName ? place : null;
    if (!have) { old.insertBefore(want.cloneNode(true), place); continue; }
    if (have === place) place = place.nextSibling;
    else if (old.moveBefore) old.moveBefore(have, place);
    else old.insertBefore(have, place);
    patch(have, want);
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
}

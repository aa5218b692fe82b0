"use strict";
// A stored log.

const WINDOW = 500, KEPT = 4000;

function windowed(log, left) { // rows of a stored log: those around the reader are here, the others come from the server
  let total = Number(log.dataset.total), busy = null;
  const where = document.getElementById("log-state");
  async function rows(from, count) {
    const answer = await ask(`${log.dataset.rows}&from=${from}&count=${count}`);
    total = Number(answer.headers.get("X-Total"));
    const template = document.createElement("template");
    template.innerHTML = await answer.text();
    return template.content;
  }
  function tell() {
    if (log.firstElementChild) where.textContent = `lines ${numberOf(log.firstElementChild)} to ${numberOf(log.lastElementChild)} of ${total}`;
  }
  async function once(work) {
    const done = async () => { try { await work(); tell(); } catch (error) { where.textContent = `not loaded: ${why(error)}`; } };
    busy = done();
    await busy;
    busy = null;
  }
  function mark(line) {
    const row = document.getElementById(`L${line}`);
    if (row) markRow(log, row);
  }
  async function show(line) {
    while (busy) await busy; // rows for the scrolling reader are on their way
    await once(async () => {
      if (!document.getElementById(`L${line}`)) log.replaceChildren(await rows(Math.max(1, line - WINDOW / 2), WINDOW));
    });
    mark(line);
  }
  const more = () => busy || once(async () => {
    const first = log.firstElementChild, last = log.lastElementChild;
    if (!first) return;
    if (log.scrollTop < 400 && numberOf(first) > 1) {
      const from = Math.max(1, numberOf(first) - WINDOW), height = log.scrollHeight, top = log.scrollTop;
      log.prepend(await rows(from, numberOf(first) - from));
      log.scrollTop = top + log.scrollHeight - height;
      while (log.childElementCount > KEPT) log.lastElementChild.remove();
    } else if (log.scrollHeight - log.scrollTop - log.clientHeight < 400 && numberOf(last) < total) {
      log.append(await rows(numberOf(last) + 1, WINDOW));
      while (log.childElementCount > KEPT) {
        const height = log.firstElementChild.offsetHeight;
        log.firstElementChild.remove();
        log.scrollTop -= height;
      }
    }
  });
  log.addEventListener("scroll", more, { passive: true });
  addEventListener("hashchange", () => { const line = lineOf(location.hash); if (line) show(line); }, { signal: left });
  document.getElementById("goto").addEventListener("submit", (event) => {
    event.preventDefault();
    const line = Math.min(Math.max(1, Number(event.target.elements.from.value)), total);
    if (location.hash === `#L${line}`) show(line); else location.hash = `L${line}`;
  });
  const line = lineOf(location.hash);
  if (line) show(line);
  else if (log.dataset.end === "true") log.scrollTop = log.scrollHeight;
  tell();
}

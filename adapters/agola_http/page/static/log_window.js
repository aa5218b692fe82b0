"use strict";
// A log in windows: stored, or what there is of one that grows.

const WINDOW = 500, KEPT = 4000;

function windowed(log, left) { // rows around the reader are here, the others come from the server
  let total = Number(log.dataset.total), busy = null;
  const where = document.getElementById("log-state");
  async function rows(asked) {
    const answer = await ask(`${log.dataset.rows}&${asked}`);
    total = Number(answer.headers.get("X-Total"));
    const template = document.createElement("template");
    template.innerHTML = await answer.text();
    return template.content;
  }
  function tell() {
    if (log.firstElementChild) where.textContent = `lines ${firstLine(log)} to ${lastLine(log)} of ${total}`;
  }
  async function once(work) {
    const done = async () => { try { if (await work() !== null) tell(); } catch (error) { where.textContent = `not loaded: ${why(error)}`; } };
    busy = done();
    await busy;
    busy = null;
  }
  async function show(line) {
    while (busy) await busy; // rows for the scrolling reader are on their way
    await once(async () => {
      if (!rowOf(line)) log.replaceChildren(await rows(`at=${line}&count=${WINDOW}`));
    });
    const row = rowOf(line);
    if (row) markRow(log, row);
    more();
  }
  async function more() {
    let again = null; // what is folded does not fill the window
    if (!busy) await once(async () => { again = await load(); return again; });
    if (again && !left.aborted) more();
  }
  async function load() { // null: nothing was needed
    let again = null;
    if (!log.firstElementChild) return null;
    if (log.scrollTop < 400 && firstLine(log) > 1) {
      const height = log.scrollHeight, top = log.scrollTop;
      prependRows(log, await rows(`before=${firstLine(log)}&count=${WINDOW}`));
      log.scrollTop = top + log.scrollHeight - height;
      again = trim(log, KEPT, false) < KEPT - WINDOW;
    } else if (log.scrollHeight - log.scrollTop - log.clientHeight < 400 && lastLine(log) < total) {
      appendRows(log, await rows(`from=${lastLine(log) + 1}&count=${WINDOW}`));
      const height = log.scrollHeight, top = log.scrollTop;
      again = trim(log, KEPT, true) < KEPT - WINDOW;
      log.scrollTop = top + log.scrollHeight - height;
    }
    return again;
  }
  async function fill(group) { // the rows of a long group come when it is opened, some at a time
    const rest = group.querySelector(":scope > .rest");
    while (busy) await busy;
    await once(async () => {
      const from = (rowsIn(group).length ? numberOf(rowsIn(group).pop()) : numberOf(group)) + 1;
      const fresh = (await rows(`from=${from}&count=${WINDOW}`)).firstElementChild;
      rest.before(...rowsIn(fresh));
      const next = numberOf(rest.previousElementSibling) + 1;
      if (next > Number(group.dataset.end)) { rest.remove(); return; }
      rest.textContent = `Show more lines, from ${next}`;
      rest.href = rest.href.replace(/from=[0-9]+/, `from=${next}`);
    });
  }
  log.addEventListener("toggle", (event) => {
    const group = event.target;
    if (group.open && group.querySelector(":scope > .rest") && !rowsIn(group).length) fill(group); else more();
  }, { capture: true, signal: left });
  log.addEventListener("click", (event) => {
    if (!event.target.matches(".rest")) return;
    event.preventDefault();
    fill(event.target.parentNode);
  }, { signal: left });
  log.addEventListener("scroll", more, { passive: true, signal: left });
  addEventListener("hashchange", () => { const line = lineOf(location.hash); if (line) show(line); }, { signal: left });
  document.getElementById("goto").addEventListener("submit", (event) => {
    event.preventDefault();
    const line = Math.min(Math.max(1, Number(event.target.elements.from.value)), total);
    if (location.hash === `#L${line}`) show(line); else location.hash = `L${line}`;
  });
  logTools(log, async (line) => { location.hash = `L${line}`; await show(line); }, left); // its address can be passed on
  const line = lineOf(location.hash);
  if (line) show(line);
  else { if (log.dataset.end === "true") log.scrollTop = log.scrollHeight; more(); }
  tell();
}

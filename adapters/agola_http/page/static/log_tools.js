"use strict";
// What every log has: its lines wrapped or not, its rows in groups, and ways from line to line.

const NO_WRAP = "agola-no-wrap";

function logTools(log, show, left) { // show: shows a line, wherever it is
  const wrap = document.getElementById("wrap"), state = document.getElementById("jumped");
  const setWrap = (on) => log.classList.toggle("nowrap", !on);
  wrap.parentNode.hidden = false;
  wrap.checked = !localStorage.getItem(NO_WRAP);
  setWrap(wrap.checked);
  wrap.addEventListener("change", () => { setWrap(wrap.checked); if (wrap.checked) localStorage.removeItem(NO_WRAP); else localStorage.setItem(NO_WRAP, "yes"); });
  log.addEventListener("mouseover", (event) => { if (event.target.localName === "time") tellTimes(event.target.parentNode); }, { signal: left });
  const errors = document.getElementById("errors");
  let counting = false;
  function tellErrors(found) { // what was found so far; true while that is not all
    if (found !== "0+") document.getElementById("error-count").textContent = `${found} found`;
    return found.endsWith("+");
  }
  async function countErrors() { // a long log is counted in pieces; what cannot be kept is not counted again and again
    if (counting) return;
    counting = true;
    try {
      for (let before = 0, more = true; more;) {
        const answer = await ask(errors.dataset.count, { signal: left }), counted = Number(answer.headers.get("X-Counted"));
        more = tellErrors(await answer.text()) && counted > before;
        before = counted;
      }
    } catch { /* the next jump tries again */ }
    counting = false;
  }
  if (errors.dataset.more !== undefined) countErrors();
  for (const form of document.querySelectorAll("form[data-jump]")) form.addEventListener("submit", async (event) => {
    const to = event.submitter?.getAttribute("formaction") || form.getAttribute("action");
    if (!to.endsWith("/next")) return; // the list of what was found is a page of its own
    event.preventDefault();
    const asked = new URLSearchParams(new FormData(form, event.submitter));
    const marked = log.querySelector(".target");
    const next = async (line) => (asked.set("line", line), asked.set("part", ""), ask(`${to}?${asked}`, { signal: left }));
    try {
      let answer = await next(marked ? numberOf(marked) : 0), line = Number(await answer.text()), around = "";
      if (!line && marked) { answer = await next(0); line = Number(await answer.text()); around = "from the other end: "; }
      if (form.id && tellErrors(answer.headers.get("X-Errors"))) countErrors();
      if (line) await show(line);
      state.textContent = line ? `${around}line ${line} of ${answer.headers.get("X-Total")}` : "no line like this";
    } catch (error) { if (!left.aborted) state.textContent = `not found: ${why(error)}`; }
  }, { signal: left });
}

function markRow(log, row) {
  for (const other of log.querySelectorAll(".target")) other.classList.remove("target");
  row.classList.add("target");
  if (row.localName === "div" && row.parentNode !== log) row.parentNode.open = true;
  row.scrollIntoView({ block: "center" });
}

const lineOf = (hash) => { const found = /^#L([1-9][0-9]{0,14})$/.exec(hash); return found ? Number(found[1]) : 0; };
const numberOf = (row) => Number(row.id.slice(1));
const rowOf = (line) => document.getElementById(`L${line}`);

// A group is a <details>: its heading is the line that begins it, its rows follow. A part of one has a heading that is no line.

const isGroup = (item) => item.localName === "details";
const rowsIn = (group) => [...group.children].filter((item) => item.localName === "div");
function firstLine(log) {
  const first = log.firstElementChild;
  return first && numberOf(!isGroup(first) || first.firstElementChild.id ? (isGroup(first) ? first.firstElementChild : first) : rowsIn(first)[0]);
}
function lastLine(log) {
  const last = log.lastElementChild;
  if (!last || !isGroup(last)) return last ? numberOf(last) : 0;
  return last.querySelector(":scope > .rest") ? Number(last.dataset.end) : numberOf(last.lastElementChild);
}
const weigh = (item) => !isGroup(item) ? 1 : item.open ? item.childElementCount : 1 + item.childElementCount / 10; // what is folded is little
function trim(log, most, fromTop) { // a closed group goes as a whole
  let weight = [...log.children].reduce((sum, item) => sum + weigh(item), 0);
  while (weight > most) {
    const item = fromTop ? log.firstElementChild : log.lastElementChild, before = weigh(item);
    const row = isGroup(item) && item.open && (fromTop ? item.children[1] : item.lastElementChild);
    if (row && row.localName === "div" && item.childElementCount > 2) {
      if (fromTop) item.firstElementChild.removeAttribute("id");
      row.remove();
    } else item.remove();
    weight -= before - (item.isConnected ? weigh(item) : 0);
  }
  return weight;
}
function appendRows(log, rows) { // in a group that goes on, after its last row
  const last = log.lastElementChild, first = rows.firstElementChild;
  if (last && first && isGroup(last) && last.id === first.id) { last.append(...rowsIn(first)); first.remove(); }
  log.append(rows);
}
function prependRows(log, rows) {
  const first = log.firstElementChild, last = rows.lastElementChild;
  if (first && last && isGroup(first) && last.id === first.id) { last.append(...rowsIn(first)); last.open = first.open; first.remove(); }
  log.prepend(rows);
}

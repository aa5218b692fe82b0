"use strict";
// What is live: parts of a page are patched while they may change, a log grows, or is loaded as one scrolls through it.

const INTERVAL = 1000, SLOW = 4000, MAX_ROWS = 20000, WINDOW = 500, KEPT = 4000;
const pause = (ms) => new Promise((go) => setTimeout(go, ms));

// Times: the page tells UTC; the reader's own time is the tooltip.

function tellTimes(top) {
  for (const time of top.querySelectorAll("time[datetime]")) {
    const local = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    if (time.title !== local) time.title = local;
  }
}

// Patching: only what differs is touched, so that selection, focus, scrolling and open folds stay.

const touched = new WeakSet(); // folds that the reader opened or closed
document.addEventListener("click", (event) => {
  const summary = event.target.closest("summary");
  if (summary) touched.add(summary.parentNode);
});

function patch(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) { old.replaceWith(fresh.cloneNode(true)); return; }
  if (old.nodeType !== Node.ELEMENT_NODE) { if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue; return; }
  const own = (name) => (name === "open" && touched.has(old)) || (name === "title" && old.nodeName === "TIME") || name === "aria-busy";
  for (const { name, value } of fresh.attributes) if (!own(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  for (const { name } of [...old.attributes]) if (!own(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
  patchChildren(old, fresh);
}

function patchChildren(old, fresh) {
  const wanted = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
  for (const child of [...old.children]) if (child.id && !wanted.has(child.id)) child.remove();
  const known = new Map([...old.children].filter((child) => child.id).map((child) => [child.id, child]));
  let place = old.firstChild;
  for (const want of [...fresh.childNodes]) {
    const have = want.id ? known.get(want.id) : place && !place.id && place.nodeName === want.nodeName ? place : null;
    if (!have) { old.insertBefore(want.cloneNode(true), place); continue; }
    if (have === place) place = place.nextSibling;
    else if (old.moveBefore) old.moveBefore(have, place);
    else old.insertBefore(have, place);
    patch(have, want);
  }
  while (place) { const next = place.nextSibling; place.remove(); place = next; }
}

// A part that may change is asked for again and again; a connection that is lost is told, and comes back by itself.

const banner = document.getElementById("connection");
function lost(part, since, why) {
  const text = `Connection lost at ${since.toLocaleTimeString()} (${why}): what is shown may be out of date. Trying again.`;
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = false;
  part.classList.add("stale");
}
function found(part) { banner.hidden = true; part.classList.remove("stale"); }

async function keepLive(part) {
  const template = document.createElement("template");
  let etag = null, since = null, failures = 0, wake = () => {};
  for (const event of ["online", "focus"]) addEventListener(event, () => wake());
  while (part.dataset.finished !== "true") {
    const wait = failures ? Math.min(INTERVAL * 2 ** failures, 10000) : document.hidden ? SLOW : INTERVAL;
    await Promise.race([pause(wait), new Promise((go) => { wake = go; })]);
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const answer = await fetch(part.dataset.live, { headers, redirect: "error", signal: AbortSignal.timeout(10000) });
      if (!answer.ok && answer.status !== 304) throw new Error(`the server answers ${answer.status}`);
      if (answer.status === 200) {
        template.innerHTML = await answer.text();
        etag = answer.headers.get("ETag");
        patchChildren(part, template.content);
        tellTimes(part);
      }
      if (failures) found(part);
      since = null; failures = 0;
      part.dataset.finished = answer.headers.get("X-Finished");
    } catch (error) {
      since ??= new Date(); failures++;
      lost(part, since, error instanceof TypeError ? "the server cannot be reached" : error.message);
    }
  }
}

// A button that was pressed says so, and is not pressed twice.

document.addEventListener("submit", (event) => {
  if (event.target.method !== "post") return;
  if (event.target.dataset.sent) { event.preventDefault(); return; }
  event.target.dataset.sent = "yes";
  if (event.submitter) event.submitter.setAttribute("aria-busy", "true");
});
addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => {
  delete form.dataset.sent;
  form.querySelectorAll("[aria-busy]").forEach((button) => button.removeAttribute("aria-busy"));
}));

// Logs.

// As page/log_rows.py makes them of a stored log: the text that a terminal would leave, in its colours.
const OTHER = /\x1b(?:\[[0-9;?]*[ -\/]*[@-ln-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])/g, STYLE = /\x1b\[([0-9;]*)m/;
const SWITCHES = { 1: "bold", 2: "dim", 3: "italic", 4: "underline" }, ENDS = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"] };

function styled(line, style, into) {
  line.replace(OTHER, "").replace(/\r+$/, "").replace(/^.*\r/, "").split(STYLE).forEach((part, number) => {
    if (number % 2) apply(part.length < 100 ? part.split(";").map(Number) : [0], style);
    else if (part) {
      const classes = [...style.values()].join(" ");
      if (!classes) { into.append(part); return; }
      const span = document.createElement("i");
      span.className = classes; span.textContent = part; into.append(span);
    }
  });
}

function apply(codes, style) {
  const set = (colour, ground) => style.set(ground ? "ground" : "colour", (ground ? "bg" : "fg") + colour);
  while (codes.length) {
    const code = codes.shift();
    if (code === 0) style.clear();
    else if (SWITCHES[code]) style.set(SWITCHES[code], SWITCHES[code]);
    else if (ENDS[code]) ENDS[code].forEach((name) => style.delete(name));
    else if (code === 38 || code === 48) { const colour = extended(codes); if (colour !== null) set(colour, code === 48); }
    else if (code === 39 || code === 49) style.delete(code === 49 ? "ground" : "colour");
    else if ((code >= 30 && code <= 37) || (code >= 40 && code <= 47)) set(code % 10, code >= 40);
    else if ((code >= 90 && code <= 97) || (code >= 100 && code <= 107)) set(code % 10 + 8, code >= 100);
  }
}

function extended(codes) {
  const kind = codes.shift();
  let colour;
  if (kind === 5) {
    const number = codes.shift() ?? 0;
    if (number < 16) return number;
    if (number >= 232) return [0, 8, 7, 15][Math.min(Math.floor((number - 232) / 6), 3)];
    colour = [Math.floor((number - 16) / 36), Math.floor((number - 16) / 6) % 6, (number - 16) % 6].map((part) => part * 51);
  } else if (kind === 2) colour = [0, 0, 0].map(() => codes.shift() ?? 0);
  else return null;
  const strongest = Math.max(...colour), near = colour.map((part) => 2 * part > strongest);
  return strongest < 64 ? 0 : near[0] + 2 * near[1] + 4 * near[2] + (strongest > 200 ? 8 : 0);
}

const lineOf = (hash) => { const found = /^#L([1-9][0-9]{0,14})$/.exec(hash); return found ? Number(found[1]) : 0; };
const numberOf = (row) => Number(row.id.slice(1));

function windowed(log) { // rows of a stored log: those around the reader are here, the others come from the server
  let total = Number(log.dataset.total), busy = false;
  const where = document.getElementById("log-state");
  async function rows(from, count) {
    const answer = await fetch(`${log.dataset.rows}&from=${from}&count=${count}`, { redirect: "error" });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    total = Number(answer.headers.get("X-Total"));
    const template = document.createElement("template");
    template.innerHTML = await answer.text();
    return template.content;
  }
  function tell() {
    if (log.firstElementChild) where.textContent = `lines ${numberOf(log.firstElementChild)} to ${numberOf(log.lastElementChild)} of ${total}`;
  }
  async function once(work) {
    if (busy) return;
    busy = true;
    try { await work(); tell(); } catch (error) { where.textContent = `not loaded: ${error.message}`; }
    busy = false;
  }
  function mark(line) {
    for (const row of log.querySelectorAll(".target")) row.classList.remove("target");
    const row = document.getElementById(`L${line}`);
    if (row) { row.classList.add("target"); row.scrollIntoView({ block: "center" }); }
  }
  async function show(line) {
    await once(async () => {
      if (!document.getElementById(`L${line}`)) log.replaceChildren(await rows(Math.max(1, line - WINDOW / 2), WINDOW));
    });
    mark(line);
  }
  const more = () => once(async () => {
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
  addEventListener("hashchange", () => { const line = lineOf(location.hash); if (line) show(line); });
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

async function followLog(log) {
  const state = document.getElementById("log-state"), tail = document.getElementById("tail");
  const text = new TextDecoder(), style = new Map();
  let number = 0, held = "", taken = 0, failures = 0;
  log.replaceChildren();
  log.addEventListener("scroll", () => { tail.checked = log.scrollHeight - log.scrollTop - log.clientHeight < 40; }, { passive: true });
  tail.addEventListener("change", () => { if (tail.checked) log.scrollTop = log.scrollHeight; });
  function add(lines) {
    const part = document.createDocumentFragment();
    for (const line of lines) {
      const row = document.createElement("div"), link = document.createElement("a"), span = document.createElement("span");
      row.id = `L${++number}`; link.href = `#L${number}`; link.tabIndex = -1; link.textContent = number; styled(line, style, span);
      row.append(link, span); part.append(row);
    }
    log.append(part);
    if (tail.checked) {
      while (log.childElementCount > MAX_ROWS) log.firstElementChild.remove();
      log.scrollTop = log.scrollHeight;
    }
  }
  for (;;) {
    try {
      const answer = await fetch(log.dataset.follow);
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const reader = answer.body.getReader();
      let passed = 0; // a log only grows, so what was taken before is what it begins with
      for (;;) {
        let { done, value } = await reader.read();
        if (value) {
          const known = Math.min(Math.max(0, taken - passed), value.length);
          passed += value.length;
          value = value.subarray(known);
          taken += value.length;
        }
        failures = 0; state.textContent = "running";
        const lines = (held + text.decode(value, { stream: !done })).split("\n");
        held = lines.pop();
        if (done && held) lines.push(held);
        add(lines);
        if (done) { state.textContent = "ended"; return; }
      }
    } catch (error) {
      failures++;
      state.textContent = `connection lost (${error instanceof TypeError ? "the server cannot be reached" : error.message}): trying again`;
      await pause(Math.min(INTERVAL * 2 ** failures, 10000));
    }
  }
}

// A fold that a link leads to is opened.

function unfold() {
  const target = /^#task-/.test(location.hash) && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.nodeName === "DETAILS") { target.open = true; touched.add(target); }
}

tellTimes(document);
addEventListener("hashchange", unfold);
unfold();
document.querySelectorAll("[data-live]").forEach(keepLive);
document.querySelectorAll("[data-rows]").forEach(windowed);
document.querySelectorAll("[data-follow]").forEach(followLog);

"use strict";
// A log that grows.

const MAX_ROWS = 20000;

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

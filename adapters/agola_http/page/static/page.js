"use strict";
// What is live: parts of a page are fetched again while they may change, a log is appended to while it grows.

const INTERVAL = 1000, SLOW = 4000, MAX_LINES = 20000;

function keepLive(part) {
  let shown = part.innerHTML, etag = null;
  async function look() {
    let wait = document.hidden ? SLOW : INTERVAL;
    try {
      const answer = await fetch(part.dataset.live, { headers: etag ? { "If-None-Match": etag } : {}, redirect: "error" });
      if (answer.ok) {
        etag = answer.headers.get("ETag");
        const text = await answer.text();
        if (text !== shown) {
          const focused = document.activeElement && document.activeElement.closest("#live") ? pathOf(document.activeElement, part) : null;
          part.innerHTML = shown = text;
          if (focused) { const again = at(focused, part); if (again && again.focus) again.focus({ preventScroll: true }); }
        }
        if (answer.headers.get("X-Finished") === "true") return;
      }
    } catch { wait = SLOW; }
    setTimeout(look, wait);
  }
  if (part.dataset.finished !== "true") setTimeout(look, INTERVAL);
}

function pathOf(node, top) {
  const path = [];
  for (; node !== top; node = node.parentNode) path.unshift(Array.prototype.indexOf.call(node.parentNode.children, node));
  return path;
}

function at(path, top) {
  return path.reduce((node, index) => node && node.children[index], top);
}

function plain(line) {
  return line.replace(/\x1b(\[[0-9;?]*[ -\/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])/g, "").replace(/\r$/, "").replace(/^.*\r/, "");
}

async function followLog(log) {
  const state = document.getElementById("log-state"), tail = document.getElementById("tail");
  let number = 0, held = "";
  const decoder = new TextDecoder();
  log.replaceChildren();
  function add(lines) {
    const part = document.createDocumentFragment();
    for (const line of lines) {
      const row = document.createElement("div"), link = document.createElement("a"), text = document.createElement("span");
      row.id = `L${++number}`; link.href = `#L${number}`; link.tabIndex = -1; link.textContent = number; text.textContent = plain(line);
      row.append(link, text); part.append(row);
    }
    log.append(part);
    while (log.childElementCount > MAX_LINES) log.firstElementChild.remove();
    if (tail.checked) log.scrollTop = log.scrollHeight;
  }
  try {
    const answer = await fetch(log.dataset.follow);
    if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
    const reader = answer.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      const lines = (held + decoder.decode(value, { stream: !done })).split("\n");
      held = lines.pop();
      if (done && held) lines.push(held);
      add(lines);
      if (done) break;
    }
    state.textContent = "ended";
  } catch (error) {
    state.textContent = `interrupted: ${error.message}; reload to go on`;
  }
  if (location.hash) location.replace(location.hash);
}

document.querySelectorAll("[data-live]").forEach(keepLive);
document.querySelectorAll("[data-follow]").forEach(followLog);

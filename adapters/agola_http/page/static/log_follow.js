"use strict";
// A log that grows: the server sends its rows, each on a line; one whose line goes on comes again.

const MAX_ROWS = 5000, ROWS_INTERVAL = 100;

async function followLog(log, left) {
  const state = document.getElementById("log-state"), tail = document.getElementById("tail");
  const template = document.createElement("template");
  let failures = 0, pending = [], timer = 0, last = 0;
  logTools(log, async (line) => { // a line that is not here any more is shown in a window
    const row = rowOf(line);
    if (!row) { location.href = `${log.dataset.page}&at=${line}#L${line}`; return; }
    tail.checked = false;
    markRow(log, row);
  }, left);
  log.addEventListener("scroll", () => { tail.checked = atEnd(log); if (tail.checked) show(); }, { passive: true });
  tail.addEventListener("change", () => { if (tail.checked) { show(); log.scrollTop = log.scrollHeight; } });
  function take(lines) { // of a log that grows faster than it is shown, the newest rows are kept
    if (!lines.length) return;
    const all = pending.concat(lines), left = all.length - MAX_ROWS;
    pending = all.slice(-MAX_ROWS);
    if (left > 0 && / class="[a-z ]*\bin"/.test(pending[0])) pending.unshift(...all.slice(0, left).filter((line) => line.startsWith("<details")).slice(-1));
    for (const line of lines) last = Number(/id="L([0-9]+)"/.exec(line)?.[1] ?? last);
    timer ||= setTimeout(show, ROWS_INTERVAL);
  }
  function show() {
    timer = 0;
    if (!pending.length || (!tail.checked && log.getElementsByTagName("div").length >= MAX_ROWS)) return;
    template.innerHTML = pending.join("");
    pending = [];
    for (const row of [...template.content.children]) add(row);
    if (tail.checked) {
      trim(log, MAX_ROWS, true);
      log.scrollTop = log.scrollHeight;
    }
  }
  function add(row) { // a newer one takes the place of the row whose line went on
    const group = log.lastElementChild && isGroup(log.lastElementChild) ? log.lastElementChild : null;
    if (isGroup(row) && document.getElementById(row.id)) return; // it goes on
    rowOf(numberOf(row))?.remove();
    if (!isGroup(row) && row.classList.contains("in") && group) { group.append(row); return; }
    if (group && !touched.has(group) && !group.querySelector(":scope > .bad")) group.open = false; // it has ended
    log.append(row);
  }
  while (!left.aborted) {
    try {
      const skip = Math.max(0, last - 1); // the last one may go on
      const answer = await ask(`${log.dataset.follow}&skip=${skip}`, { signal: left });
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let held = "";
      for (;;) {
        const { done, value } = await reader.read();
        failures = 0; state.textContent = "running";
        const lines = (held + (value || "")).split("\n");
        held = lines.pop();
        take(lines);
        if (done) { state.textContent = "ended"; return; }
      }
    } catch (error) {
      if (left.aborted) return;
      failures++;
      state.textContent = `connection lost (${why(error)}): trying again`;
      await pause(backoff(failures));
    }
  }
}

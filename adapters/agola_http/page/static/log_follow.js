"use strict";
// A log that grows: the server sends its rows, each on a line; one whose line goes on comes again.

const MAX_ROWS = 5000, ROWS_INTERVAL = 100;

async function followLog(log, left) {
  const state = document.getElementById("log-state"), tail = document.getElementById("tail");
  const template = document.createElement("template");
  let failures = 0, pending = [], timer = 0, last = 0;
  log.addEventListener("scroll", () => { tail.checked = atEnd(log); if (tail.checked) show(); }, { passive: true });
  tail.addEventListener("change", () => { if (tail.checked) { show(); log.scrollTop = log.scrollHeight; } });
  function take(lines) { // of a log that grows faster than it is shown, the newest rows are kept
    if (!lines.length) return;
    pending = pending.concat(lines).slice(-MAX_ROWS);
    last = Number(/id="L([0-9]+)"/.exec(lines[lines.length - 1])[1]);
    timer ||= setTimeout(show, ROWS_INTERVAL);
  }
  function show() {
    timer = 0;
    if (!pending.length || (!tail.checked && log.childElementCount >= MAX_ROWS)) return;
    template.innerHTML = pending.join("");
    pending = [];
    for (const row of [...template.content.children]) if (row.nextElementSibling?.id === row.id) row.remove();
    const first = numberOf(template.content.firstElementChild);
    while (log.lastElementChild && numberOf(log.lastElementChild) >= first) log.lastElementChild.remove();
    log.append(template.content);
    if (tail.checked) {
      while (log.childElementCount > MAX_ROWS) log.firstElementChild.remove();
      log.scrollTop = log.scrollHeight;
    }
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

"use strict";
// A log that grows: the server sends its rows, each on a line; one whose line goes on comes again.

const MAX_ROWS = 20000;

async function followLog(log, left) {
  const state = document.getElementById("log-state"), tail = document.getElementById("tail");
  let failures = 0;
  log.addEventListener("scroll", () => { tail.checked = atEnd(log); }, { passive: true });
  tail.addEventListener("change", () => { if (tail.checked) log.scrollTop = log.scrollHeight; });
  const template = document.createElement("template");
  function add(lines) {
    template.innerHTML = lines.join("");
    const fresh = template.content.firstElementChild;
    if (!fresh) return;
    while (log.lastElementChild && numberOf(log.lastElementChild) >= numberOf(fresh)) log.lastElementChild.remove();
    for (let row = fresh; row; row = row.nextElementSibling) while (row.nextElementSibling?.id === row.id) row = replaced(row);
    log.append(template.content);
    if (tail.checked) {
      while (log.childElementCount > MAX_ROWS) log.firstElementChild.remove();
      log.scrollTop = log.scrollHeight;
    }
  }
  function replaced(row) { const next = row.nextElementSibling; row.remove(); return next; }
  while (!left.aborted) {
    try {
      const skip = log.lastElementChild ? numberOf(log.lastElementChild) - 1 : 0; // the last one may go on
      const answer = await fetch(`${log.dataset.follow}&skip=${skip}`, { redirect: "error", signal: left });
      if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let held = "";
      for (;;) {
        const { done, value } = await reader.read();
        failures = 0; state.textContent = "running";
        const lines = (held + (value || "")).split("\n");
        held = lines.pop();
        add(lines);
        if (done) { state.textContent = "ended"; return; }
      }
    } catch (error) {
      if (left.aborted) return;
      failures++;
      state.textContent = `connection lost (${error instanceof TypeError ? "the server cannot be reached" : error.message}): trying again`;
      await pause(Math.min(INTERVAL * 2 ** failures, 10000));
    }
  }
}

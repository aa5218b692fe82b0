"use strict";
// Starts what a page has.

// Times: the page tells UTC; the reader's own time is the tooltip.

function tellTimes(top) {
  for (const time of top.querySelectorAll("time[datetime]")) {
    const local = new Date(time.dateTime).toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    if (time.title !== local) time.title = local;
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

// A log is started when it comes to stand on the page, and left when another one takes its place.

let leaving = new AbortController(), started = null;
function startLog() {
  const log = document.getElementById("log");
  if (log === started) return;
  leaving.abort();
  leaving = new AbortController();
  started = log;
  if (!log) return;
  if (log.dataset.follow) followLog(log, leaving.signal); else windowed(log, leaving.signal);
}

tellTimes(document);
document.querySelectorAll("[data-live]").forEach(keepLive);
startLog();

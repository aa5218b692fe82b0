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

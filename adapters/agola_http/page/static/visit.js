"use strict";
// Links within a run's page change only what differs, and have addresses of their own; without script they are links.

const runScreen = document.getElementById("screen");
let visited = location.pathname + location.search, visits = 0;

async function visit(url, keep) { // keep: the function of `history` that keeps the address; none when going back
  const number = ++visits;
  let fresh;
  try {
    const answer = await ask(url);
    fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!fresh.getElementById("screen")) throw new Error("another page");
  } catch {
    if (number === visits) location.href = url; // the browser tells what is wrong
    return;
  }
  if (number !== visits) return; // another one was chosen meanwhile
  if (keep) history[keep](null, "", url);
  visited = location.pathname + location.search;
  document.title = fresh.title;
  patchChildren(runScreen, fresh.getElementById("screen"));
  tellTimes(runScreen);
  startLog();
}

function proposed() { // when the reader chose no log, that of what runs or failed is shown, unless they read another
  const wanted = document.getElementById("proposed"), shown = document.querySelector("#pane > [data-log]");
  if (!wanted || !shown || wanted.dataset.log === shown.dataset.log) return;
  const log = document.getElementById("log");
  if (!shown.dataset.log || (log && atEnd(log) && !selectedIn(log))) visit(location.pathname + location.search, "replaceState");
}

const atEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 40;
const selectedIn = (log) => !getSelection().isCollapsed && log.contains(getSelection().anchorNode);

if (runScreen) {
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-visit], .tasks a, .drawing svg a");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    await visit(link.getAttribute("href"), "pushState");
    const pane = document.querySelector(".task, .drawing");
    if (pane && matchMedia("(max-width: 56rem)").matches) pane.scrollIntoView();
  });
  document.addEventListener("input", (event) => {
    if (event.target.dataset.search === undefined) return;
    const form = event.target.form;
    visit(`${form.getAttribute("action")}?${new URLSearchParams(new FormData(form))}`, "replaceState");
  });
  document.addEventListener("toggle", (event) => { // what a closed fold holds comes when it is opened
    const more = event.target.open && event.target.querySelector(":scope > a[data-more]");
    if (more) visit(more.getAttribute("href"), "replaceState");
  }, true);
  addEventListener("popstate", () => { if (location.pathname + location.search !== visited) visit(location.href); });
}

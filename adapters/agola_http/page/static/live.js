"use strict";

const INTERVAL = 1000, SLOW = 4000;
const pause = (ms) => new Promise((go) => setTimeout(go, ms));
const backoff = (failures) => Math.min(INTERVAL * 2 ** failures, 10000);
const why = (error) => error instanceof TypeError ? "the server cannot be reached" : error.message;

async function ask(url, options) {
  const answer = await fetch(url, { redirect: "error", ...options });
  if (!answer.ok && answer.status !== 304) throw new Error(`the server answers ${answer.status}`);
  return answer;
}

// A part that may change is asked for again and again; a connection that is lost is told, and comes back by itself.

const banner = document.getElementById("connection");
function lost(part, since, reason) {
  const text = `Connection lost at ${since.toLocaleTimeString()} (${reason}): what is shown may be out of date. Trying again.`;
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
    const wait = failures ? backoff(failures) : document.hidden ? SLOW : INTERVAL;
    await Promise.race([pause(wait), new Promise((go) => { wake = go; })]);
    try {
      const headers = etag ? { "If-None-Match": etag } : {};
      const url = part.dataset.live;
      const answer = await ask(url, { headers, signal: AbortSignal.timeout(10000) });
      if (answer.status === 200) {
        template.innerHTML = await answer.text();
        if (url !== part.dataset.live) continue; // the reader went elsewhere meanwhile
        etag = answer.headers.get("ETag");
        patchChildren(part, template.content);
        tellTimes(part);
        proposed();
      }
      if (failures) found(part);
      since = null; failures = 0;
      part.dataset.finished = answer.headers.get("X-Finished");
    } catch (error) {
      since ??= new Date(); failures++;
      lost(part, since, why(error));
    }
  }
}

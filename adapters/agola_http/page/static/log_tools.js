"use strict";
// What every log has: its lines wrapped or not, and a way from one marked line to the next.

const NO_WRAP = "agola-no-wrap";

function logTools(log) {
  const wrap = document.getElementById("wrap"), next = document.getElementById("next-mark");
  const setWrap = (on) => log.classList.toggle("nowrap", !on);
  wrap.parentNode.hidden = false;
  wrap.checked = !localStorage.getItem(NO_WRAP);
  setWrap(wrap.checked);
  wrap.addEventListener("change", () => { setWrap(wrap.checked); if (wrap.checked) localStorage.removeItem(NO_WRAP); else localStorage.setItem(NO_WRAP, "yes"); });
  next.hidden = false;
  next.addEventListener("click", () => {
    const rows = [...log.querySelectorAll(".bad")], last = log.querySelector(".target");
    const row = rows.find((item) => last && numberOf(item) > numberOf(last)) || rows[0];
    if (row) markRow(log, row); else next.textContent = "No error among these lines";
  });
}

function markRow(log, row) {
  for (const other of log.querySelectorAll(".target")) other.classList.remove("target");
  row.classList.add("target");
  row.scrollIntoView({ block: "center" });
}

const lineOf = (hash) => { const found = /^#L([1-9][0-9]{0,14})$/.exec(hash); return found ? Number(found[1]) : 0; };
const numberOf = (row) => Number(row.id.slice(1));

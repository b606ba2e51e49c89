
"use strict";
// The page is complete without this: it adds sorting and quicker tooltips.
const roles = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
for (const each of document.querySelectorAll("table, thead, tbody, tr, td")) {
  // On a phone rows are blocks, and a table whose style says so is no table to a screen reader.
  each.setAttribute("role", roles[each.tagName]);
}
for (const each of document.querySelectorAll("th")) {
  each.setAttribute("role", each.scope === "row" ? "rowheader" : "columnheader");
}
for (const table of document.querySelectorAll("table:not(.pairs)")) {
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.querySelector("svg") || !head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(table, body, head, column));
  });
}
function sort(table, body, head, column) {
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const numeric = !head.classList.contains("text");
  const key = (row) => {
    const cell = row.cells[column];
    const text = cell.dataset.sort ?? cell.textContent;
    return numeric || (text !== "" && !isNaN(text)) ? parseFloat(text.replace("inf", "Infinity")) : text;
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (typeof x === "number" && typeof y === "number") {
      // NaN is the worst: before all others when the largest come first.
      return (isNaN(x) ? 1 : 0) - (isNaN(y) ? 1 : 0) || (x < y ? -1 : x > y ? 1 : 0);
    }
    return String(x).localeCompare(String(y), "en", { numeric: true });
  };
  const rows = [...body.rows].sort((a, b) => (down ? compare(b, a) : compare(a, b)));
  body.append(...rows);
}

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
tip.setAttribute("aria-hidden", "true");
document.body.append(tip);
for (const title of document.querySelectorAll("svg title")) {
  title.parentNode.tip = title.textContent;
  title.remove();
}
document.addEventListener("pointermove", (event) => {
  const text = event.target.tip;
  tip.hidden = !text;
  if (!text) return;
  tip.textContent = text;
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.max(event.clientY - tip.offsetHeight - 8, 8)}px`;
});

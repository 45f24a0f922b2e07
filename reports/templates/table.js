"use strict";
document.documentElement.classList.remove("static"); /* shows what needs the script */
const data = JSON.parse(document.getElementById("data").textContent);

/* Sorting: the first click puts the better end on top. */
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach((h) => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const value = (row) => Number(row.cells[column].dataset.sort);
    const body = table.tBodies[0];
    [...body.rows].sort((a, b) => sign * (value(a) - value(b))).forEach((row) => body.append(row));
  }));
}
for (const box of document.querySelectorAll(".show-paper")) {
  box.addEventListener("change", () => box.closest("section").querySelector("table").classList.toggle("with-paper", box.checked));
}
for (const box of document.querySelectorAll(".show-group")) {
  const show = () => box.closest("section").querySelector("table").classList.toggle("with-" + box.value, box.checked);
  box.addEventListener("change", show);
  show(); /* browsers keep a box checked when a page is loaded again */
}
for (const box of document.querySelectorAll(".switch .show-variants")) {
  box.addEventListener("change", () => box.closest("section").querySelector("table").classList.toggle("few", !box.checked));
}

// Tables sort by a click on a title (or Enter on it): numbers by size, words by the alphabet, missing cells last.
const keyOf = (cell) => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = text === "" ? NaN : Number(text);
  return { text, number, missing: cell.classList.contains("missing") || text === "" };
};
const compare = (a, b) =>
  Number.isNaN(a.number) || Number.isNaN(b.number)
    ? a.text.localeCompare(b.text, undefined, { numeric: true })
    : a.number - b.number;
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      // Results are looked for from the best on, words from A on; a second click turns that round.
      const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: keyOf(row.cells[column]) }));
      const numeric = rows.some(({ key }) => !key.missing && !Number.isNaN(key.number));
      const before = head.getAttribute("aria-sort");
      const up = before === "none" ? !numeric : before === "descending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      rows.sort((a, b) => a.key.missing - b.key.missing || (up ? 1 : -1) * compare(a.key, b.key));
      table.tBodies[0].append(...rows.map(({ row }) => row));
    });
  });
}
const filter = document.getElementById("filter");
const rows = [...document.querySelectorAll("table.sortable tbody tr")].map((row) => ({ row, text: row.textContent.toLowerCase() }));
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const { row, text } of rows) {
    row.hidden = !words.every((word) => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById("count").textContent = words.length ? `${shown} of ${rows.length} rows` : "";
});

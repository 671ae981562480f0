// The table of runs: sorted by its heads, filtered by words and comparisons, ticked to choose runs.
"use strict";

{
  const body = document.querySelector("#table tbody");
  const rows = [...body.rows];
  const heads = [...document.querySelectorAll("#table th[data-key]")];
  const field = document.getElementById("filter");
  const count = document.getElementById("shown");
  const names = Object.fromEntries(data.keys.map(({ key, name }) => [name, key]));

  function value(row, column) {
    const cell = row.cells[column + 1]; // the first cell holds the tick
    return "value" in cell.dataset ? Number(cell.dataset.value) : cell.textContent;
  }

  // Numbers before texts, and what is missing last whichever way it is sorted.
  function compare(a, b, sign) {
    const missing = (v) => v === "–" || Number.isNaN(v);
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
    return sign * order;
  }

  function sort(column) {
    const ascending = heads[column].getAttribute("aria-sort") !== "ascending";
    heads.forEach((head) => head.setAttribute("aria-sort", "none"));
    heads[column].setAttribute("aria-sort", ascending ? "ascending" : "descending");
    rows.sort((a, b) => compare(value(a, column), value(b, column), ascending ? 1 : -1));
    body.append(...rows);
  }

  const tests = {
    "<=": (order) => order <= 0, ">=": (order) => order >= 0, "!=": (order) => order !== 0,
    "=": (order) => order === 0, "<": (order) => order < 0, ">": (order) => order > 0,
  };

  // A term is `key<number`, `key=text` and the like, or a word. null: no column has that name.
  function term(text) {
    const parts = /^([\w.-]+)(<=|>=|!=|=|<|>)(.+)$/.exec(text);
    if (!parts) return (row) => row.textContent.toLowerCase().includes(text.toLowerCase());
    const key = names[parts[1]] ?? parts[1];
    const column = heads.findIndex((head) => head.dataset.key === key);
    if (column < 0) return null;
    const wanted = parts[3];
    return (row) => {
      const found = value(row, column);
      if (typeof found === "number") return tests[parts[2]](found - Number(wanted));
      if (found === "–") return false;
      return tests[parts[2]](found.localeCompare(wanted, "en", { numeric: true }));
    };
  }

  function filter() {
    const terms = field.value.trim().split(/\s+/).filter(Boolean).map(term);
    field.classList.toggle("wrong", terms.includes(null));
    const shown = new Set();
    for (const row of rows) {
      const passes = terms.every((test) => test === null || test(row));
      row.hidden = !passes;
      if (passes) shown.add(Number(row.dataset.run));
    }
    count.textContent = terms.includes(null) ? "no such column" : `${shown.size} of ${rows.length}`;
    page.set("shown", shown);
  }

  let waiting;
  field.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(column));
  });
  for (const row of rows) {
    const id = Number(row.dataset.run);
    row.addEventListener("mouseenter", () => page.set("lit", id));
    row.addEventListener("mouseleave", () => page.set("lit", null));
    row.cells[0].firstChild.addEventListener("change", ({ target }) => {
      const others = page.chosen.filter((other) => other !== id);
      page.set("chosen", target.checked ? [...others, id] : others);
    });
  }
  page.on("lit", (id) => {
    for (const row of rows) row.classList.toggle("on", Number(row.dataset.run) === id);
  });
  count.textContent = `${rows.length} runs`;
}

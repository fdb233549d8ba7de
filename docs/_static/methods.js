// Filters the table of methods: by slot, need and tier, and by text. Nothing is loaded.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const table = document.querySelector("table.methods"), place = document.querySelector(".method-filter");
  if (!table || !place) return;
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const rows = [...table.tBodies[0].rows];
  for (const row of rows) [...row.cells].forEach((cell, i) => (cell.dataset.label = names[i]));
  const values = (row, name) => row.cells[names.indexOf(name)].textContent.split(",").map((x) => x.trim()).filter(Boolean);

  const chosen = {};
  const field = (label, control) => {
    const box = document.createElement("label");
    box.append(label + " ", control);
    place.append(box);
    return control;
  };
  for (const name of ["slots", "needs", "tier"]) {
    const select = field(name, document.createElement("select"));
    const counts = new Map();
    for (const row of rows) for (const value of values(row, name)) counts.set(value, (counts.get(value) || 0) + 1);
    select.add(new Option("any", ""));
    for (const [value, count] of [...counts].sort()) select.add(new Option(`${value} (${count})`, value));
    chosen[name] = select;
  }
  const text = field("text", document.createElement("input"));
  text.type = "search";
  text.placeholder = "name, idea, paper, function";
  const count = document.createElement("output");
  place.append(count);

  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const here = row.textContent.toLowerCase();
      const fits = Object.entries(chosen).every(([name, s]) => !s.value || values(row, name).includes(s.value))
        && words.every((word) => here.includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length}`;
    const state = new URLSearchParams();
    for (const [name, select] of Object.entries(chosen)) if (select.value) state.set(name, select.value);
    if (text.value) state.set("text", text.value);
    history.replaceState(null, "", "#" + state);
  };
  const state = new URLSearchParams(location.hash.slice(1));
  for (const [name, select] of Object.entries(chosen)) if (state.has(name)) select.value = state.get(name);
  text.value = state.get("text") || "";
  place.addEventListener("input", apply);
  apply();
});

// Which runs are selected, the list of runs, and the sections of the page.

const FEW = 7;
const everyone = data.models.map((_, i) => i);
const onFront = [...new Set(data.groups.flatMap((g) => g.points.filter((p) => p.front).map((p) => p.model)))];
const selected = new Set(
  everyone.length <= FEW ? everyone : [...new Set([...onFront, ...everyone])].slice(0, FEW),
);
const chosen = (has = () => true) => everyone.filter((i) => selected.has(i) && has(data.models[i], i));

const sections = []; // of functions that draw one anew

// A section of the page. `render` returns its content for the selected runs, null for none.
function section(id, title, intro, render = () => null) {
  const body = node("div");
  const parts = [node("h2", {}, title), said(intro), body];
  document.getElementById("sections").append(node("section", { id, "aria-label": title }, parts));
  sections.push(() => {
    body.replaceChildren();
    add(body, [render()]);
  });
}

function redraw(focus) {
  hideTip();
  for (const one of sections) one();
  for (const i of everyone) document.getElementById(`run${i}`).checked = selected.has(i);
  const last =
    focus &&
    [...document.querySelectorAll("[id], [data-key]")].find((one) => focus === (one.dataset.key || one.id));
  if (last) last.focus({ preventScroll: true });
}

function toggle(model, focus) {
  if (!selected.delete(model)) selected.add(model);
  redraw(focus);
}

function choose(models) {
  selected.clear();
  for (const i of models) selected.add(i);
  redraw();
}

const said = (text) => node("p", { class: "soft" }, text);
const charts = (...figures) => node("div", { class: "charts" }, ...figures);
const controls = (...parts) => node("div", { class: "controls" }, ...parts);
const button = (text, id, onclick) => node("button", { id, onclick }, text);
const none = (what) => said(selected.size ? `None of the selected runs has ${what}.` : "No run is selected.");

// A drop-down of texts that redraws the page; `set` gets the place of the chosen one.
function dropDown(id, label, texts, place, set) {
  const onchange = (event) => {
    set(Number(event.target.value));
    redraw(id);
  };
  const options = texts.map((text, i) => node("option", { value: i, selected: i === place }, text));
  return node("label", {}, label, node("select", { id, onchange }, options));
}

function runList() {
  const rows = data.models.map((model, i) => {
    const stroke = { stroke: colour(i), "stroke-width": 2, "stroke-dasharray": dash(i) };
    const look = [draw("line", { x1: 1, x2: 27, y1: 8, y2: 8, ...stroke }), mark(i, 14, 8, {}, 4.5)];
    const sign = draw("svg", { width: 28, height: 16, "aria-hidden": "true" }, look);
    const box = node("input", { type: "checkbox", id: `run${i}`, onchange: () => toggle(i) });
    return node("li", {}, node("label", { title: model.notes.join("\n") }, box, sign, model.name));
  });
  const buttons = [
    button("All", "all", () => choose(everyone)),
    button("None", "none", () => choose([])),
    button("Front", "onfront", () => choose(onFront)),
    button("Light or dark", "theme", otherTheme),
  ];
  return [
    node("h2", { style: "margin-top:0" }, "Runs"),
    controls(buttons),
    node("ul", { class: "runs" }, rows),
  ];
}

function otherTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
}

add(document.querySelector("aside"), runList());

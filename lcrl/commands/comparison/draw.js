// Elements, scales, axes and the tooltip. All text from data enters through text nodes.

const COLOURS = 7;
const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4", "4 2 1 2", "1 2"];
const SHAPES = ["circle", "square", "triangle", "diamond", "bar", "plus", "nabla"];

const colour = (i) => `var(--c${i % COLOURS})`;
const dash = (i) => DASHES[Math.floor(i / COLOURS) % DASHES.length];

// How a run looks in charts of lines.
const looks = (i) => ({ name: data.models[i]?.name, paint: colour(i), dash: dash(i), index: i });

function add(parent, children) {
  for (const child of children.flat(Infinity))
    if (child !== null && child !== undefined) parent.append(child);
  return parent;
}

function node(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  return add(made, children);
}

function draw(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== "") made.setAttribute(name, value);
  }
  return add(made, children);
}

const shorter = (name, most = 26) => (name.length <= most ? name : "\u2026" + name.slice(1 - most));

function number(x, digits = 3) {
  if (x === null || x === undefined) return "-";
  const size = Math.abs(x);
  if (size >= 1000) return Math.round(x).toLocaleString("en");
  if (size && size < 0.001) return x.toExponential(1).replace("-", "\u2212");
  return String(Number(x.toPrecision(digits))).replace("-", "\u2212");
}

function interval([value, low, high], scale = 1, unit = "") {
  const text = number(scale * value) + unit;
  return low === null || low === undefined
    ? text
    : `${text} [${number(scale * low)}, ${number(scale * high)}]`;
}

function ticks(low, high, count = 6) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((m) => m * power >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return found;
}

// The range of the numbers, a little wider; from 0 where that is near; percentages end at 0 and 100.
function range(values, { percent = false, zero = false } = {}) {
  const known = values.filter((x) => x !== null && x !== undefined && Number.isFinite(x));
  if (!known.length) return [0, 1];
  let low = Math.min(...known);
  let high = Math.max(...known);
  const pad = 0.07 * (high - low) || 0.1 * Math.abs(high) || 0.5;
  low = zero || (low >= 0 && low < 0.35 * high) ? Math.min(low, 0) : low - pad;
  high += pad;
  return percent ? [Math.max(low, 0), Math.min(high, 100)] : [low, high];
}

const context = document.createElement("canvas").getContext("2d");
function textWidth(text, bold = false) {
  context.font = `${bold ? "600 " : ""}12px system-ui, sans-serif`;
  return context.measureText(text).width;
}

function shape(kind, x, y, attributes = {}, r = 5.5) {
  const at = (points) =>
    draw("polygon", { points: points.map(([a, b]) => `${x + r * a},${y + r * b}`).join(" "), ...attributes });
  switch (SHAPES[kind % SHAPES.length]) {
    case "square":
      return at([
        [-0.9, -0.9],
        [0.9, -0.9],
        [0.9, 0.9],
        [-0.9, 0.9],
      ]);
    case "triangle":
      return at([
        [0, -1.15],
        [1.1, 0.85],
        [-1.1, 0.85],
      ]);
    case "diamond":
      return at([
        [0, -1.3],
        [1.1, 0],
        [0, 1.3],
        [-1.1, 0],
      ]);
    case "bar":
      return at([
        [-0.5, -1.2],
        [0.5, -1.2],
        [0.5, 1.2],
        [-0.5, 1.2],
      ]);
    case "plus":
      return at([
        [-0.4, -1.2],
        [0.4, -1.2],
        [0.4, -0.4],
        [1.2, -0.4],
        [1.2, 0.4],
        [0.4, 0.4],
        [0.4, 1.2],
        [-0.4, 1.2],
        [-0.4, 0.4],
        [-1.2, 0.4],
        [-1.2, -0.4],
        [-0.4, -0.4],
      ]);
    case "nabla":
      return at([
        [0, 1.15],
        [1.1, -0.85],
        [-1.1, -0.85],
      ]);
    default:
      return draw("circle", { cx: x, cy: y, r, ...attributes });
  }
}

// What tells a run apart in every chart: colour, and shape or dashes once colours repeat.
const mark = (i, x, y, attributes = {}, r = 5.5) =>
  shape(Math.floor(i / COLOURS), x, y, { fill: colour(i), ...attributes }, r);

// Axes with a grid. Returns {svg, x, y, box}: x and y map numbers to the picture.
function axes({
  title,
  xLabel,
  xs,
  ys,
  xTicks,
  log = false,
  width = 560,
  height = 320,
  right = 16,
  yTick = number,
  label,
}) {
  const rows = ticks(...ys).map((value) => [value, yTick(value)]);
  const left = 14 + Math.max(...rows.map(([, text]) => textWidth(text)));
  const box = { left, right: width - right, top: 30, bottom: height - 42 };
  const warp = log ? Math.log2 : (v) => v;
  const [low, high] = xs.map(warp);
  const x = (v) => box.left + ((warp(v) - low) / (high - low || 1)) * (box.right - box.left);
  const y = (v) => box.bottom - ((v - ys[0]) / (ys[1] - ys[0] || 1)) * (box.bottom - box.top);
  const svg = draw("svg", {
    viewBox: `0 0 ${width} ${height}`,
    class: "chart",
    role: "img",
    "aria-label": label || title,
  });
  svg.append(draw("text", { x: 2, y: 15, class: "title" }, title));
  for (const [value, text] of rows) {
    svg.append(draw("line", { x1: box.left, x2: box.right, y1: y(value), y2: y(value), class: "grid" }));
    svg.append(draw("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end", class: "tick" }, text));
  }
  let last = -Infinity;
  for (const value of xTicks || ticks(...xs)) {
    const half = textWidth(number(value)) / 2;
    svg.append(
      draw("line", { x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 4, class: "axis" }),
    );
    if (x(value) - half < last + 6) continue;
    last = x(value) + half;
    svg.append(
      draw(
        "text",
        { x: x(value), y: box.bottom + 17, "text-anchor": "middle", class: "tick" },
        number(value),
      ),
    );
  }
  svg.append(draw("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }));
  svg.append(draw("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, xLabel));
  return { svg, x, y, box };
}

const tip = document.getElementById("tip");

function showTip(at, heading, lines) {
  tip.replaceChildren(node("b", {}, heading));
  for (const line of lines) {
    const [text, fill] = Array.isArray(line) ? line : [line, null];
    tip.append(node("div", {}, fill && node("span", { class: "swatch", style: `background:${fill}` }), text));
  }
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = at.x + 16 + width > innerWidth ? at.x - 16 - width : at.x + 16;
  const top = Math.min(at.y + 12, innerHeight - height - 6);
  tip.style.left = `${Math.max(left, 4)}px`;
  tip.style.top = `${Math.max(top, 4)}px`;
}

const hideTip = () => {
  tip.hidden = true;
};
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});

const centre = (element) => {
  const box = element.getBoundingClientRect();
  return { x: box.left + box.width / 2, y: box.top + box.height / 2 };
};

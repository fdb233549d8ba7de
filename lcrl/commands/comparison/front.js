// Accuracy against tokens: a point a result, with intervals, the front, and names where they fit.

const DIRECTIONS = [35, -35, 145, -145, 0, 180, 90, -90].map((a) => [
  Math.cos((a * Math.PI) / 180),
  -Math.sin((a * Math.PI) / 180),
]);

function frontChart(group) {
  const ends = (point, key, scale = 1) => point[key].filter((v) => v !== null).map((v) => scale * v);
  const points = [...group.points, ...group.starts];
  const xs = range(
    points.flatMap((p) => ends(p, "tokens")),
    { zero: true },
  );
  const ys = range(
    points.flatMap((p) => ends(p, "accuracy", 100)),
    { percent: true },
  );
  const frame = axes({
    title: "accuracy, % of answers",
    xLabel: "mean length of an answer, tokens",
    xs,
    ys,
    width: Math.min(860, Math.max(420, document.querySelector("main").clientWidth - 40)),
    height: 470,
    label: `Accuracy against tokens of ${points.length} results`,
  });
  const { svg, x, y, box } = frame;
  svg.setAttribute("role", "group"); // the points inside an image could not be reached
  const at = (p) => [x(p.tokens[0]), y(100 * p.accuracy[0])];
  const corners = frontCorners(group.points.filter((p) => p.front).map(at), box);
  svg.append(draw("path", { d: corners.map((c, i) => `${i ? "L" : "M"}${c}`).join(""), class: "front" }));
  const visible = points.filter((p) => p.model === undefined || selected.has(p.model));
  const lines = [
    ...segments(corners),
    ...visible.flatMap((p) => {
      const [a, b] = at(p);
      const across =
        p.tokens[1] === null
          ? []
          : [{ left: x(p.tokens[1]), right: x(p.tokens[2]), top: b - 1, bottom: b + 1 }];
      return p.accuracy[1] === null
        ? across
        : [
            ...across,
            { left: a - 1, right: a + 1, top: y(100 * p.accuracy[2]), bottom: y(100 * p.accuracy[1]) },
          ];
    }),
  ];
  const taken = points.map((p) => {
    const [a, b] = at(p);
    return { left: a - 7, right: a + 7, top: b - 7, bottom: b + 7 };
  });
  for (const start of group.starts) {
    const [a, b] = at(start);
    const made = draw("g", { tabindex: 0, role: "img", "aria-label": `start: ${told(start).join(", ")}` });
    add(made, [
      ...bars(start, x, y, "var(--soft)"),
      shape(3, a, b, { fill: "var(--paper)", stroke: "var(--soft)", "stroke-width": 1.8 }),
    ]);
    hint(made, "Before training", () => told(start));
    svg.append(made);
  }
  const drawn = group.points.map((p) => {
    const on = selected.has(p.model);
    const [a, b] = at(p);
    const made = draw("g", {
      class: on ? "point" : "point off",
      tabindex: 0,
      role: "checkbox",
      "aria-checked": on,
      "data-key": p.label,
      "aria-label": `${p.label}: ${told(p).join(", ")}`,
    });
    for (const [accuracy, tokens] of on ? p.seeds : [])
      made.append(
        draw("circle", { cx: x(tokens), cy: y(100 * accuracy), r: 2.2, fill: colour(p.model), opacity: 0.5 }),
      );
    add(made, [...bars(p, x, y, colour(p.model)), mark(p.model, a, b)]);
    made.addEventListener("click", () => toggle(p.model, p.label));
    made.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle(p.model, p.label);
    });
    const { name, notes } = data.models[p.model];
    hint(made, p.label, () => [...(p.label.startsWith(name) ? [] : [`run ${name}`]), ...told(p), ...notes]);
    svg.append(made);
    return { p, on };
  });
  const named = drawn.filter(({ on }) => on).map(({ p }) => [...at(p), shorter(p.label)]);
  if (group.starts.length) named.push([...at(group.starts[0]), group.starts.length > 1 ? "starts" : "start"]);
  const hidden = named.filter((one) => !nameBeside(svg, one, taken, box, lines)).length;
  return { svg, hidden };
}

function told(p) {
  const seeds =
    p.seeds && p.seeds.length > 1 ? [`${p.seeds.length} seeds; brackets hold 95 % intervals over them`] : [];
  const front = p.front ? ["on the front: no other result is better in both"] : [];
  return [`accuracy ${interval(p.accuracy, 100, " %")}`, `${interval(p.tokens)} tokens`, ...seeds, ...front];
}

function hint(element, heading, lines) {
  const show = (at) => showTip(at, heading, lines());
  element.addEventListener("pointermove", (event) => show({ x: event.clientX, y: event.clientY }));
  element.addEventListener("pointerleave", hideTip);
  element.addEventListener("focus", () => {
    if (element.matches(":focus-visible")) show(centre(element));
  });
  element.addEventListener("blur", hideTip);
}

function bars(p, x, y, stroke) {
  const [a, b] = [x(p.tokens[0]), y(100 * p.accuracy[0])];
  const found = [];
  if (p.tokens[1] !== null)
    found.push(
      draw("line", { x1: x(p.tokens[1]), x2: x(p.tokens[2]), y1: b, y2: b, stroke, "stroke-width": 1.3 }),
    );
  if (p.accuracy[1] !== null)
    found.push(
      draw("line", {
        x1: a,
        x2: a,
        y1: y(100 * p.accuracy[1]),
        y2: y(100 * p.accuracy[2]),
        stroke,
        "stroke-width": 1.3,
      }),
    );
  return found;
}

// The best accuracy within each number of tokens.
function frontCorners(points, box) {
  const sorted = [...points].sort((a, b) => a[0] - b[0]);
  const corners = sorted.flatMap(([a, b], i) =>
    i
      ? [
          [a, sorted[i - 1][1]],
          [a, b],
        ]
      : [[a, b]],
  );
  return sorted.length ? [...corners, [box.right, sorted.at(-1)[1]]] : [];
}

const segments = (corners) =>
  corners.slice(1).map(([a, b], i) => ({
    left: Math.min(a, corners[i][0]),
    right: Math.max(a, corners[i][0]),
    top: Math.min(b, corners[i][1]),
    bottom: Math.max(b, corners[i][1]),
  }));

// Writes a name where it covers no point and no name, and no line if that can be; false if there is
// no such place nearby.
function nameBeside(svg, point, taken, box, lines = []) {
  return written(svg, point, taken, [...taken, ...lines], box) || written(svg, point, taken, taken, box);
}

function written(svg, [a, b, name], taken, avoided, box) {
  const width = textWidth(name);
  for (const distance of [11, 18, 28, 42]) {
    for (const [dx, dy] of DIRECTIONS) {
      const left = a + distance * dx - (Math.abs(dx) < 0.1 ? width / 2 : dx > 0 ? 0 : width);
      const place = {
        left: left - 2,
        right: left + width + 2,
        top: b + distance * dy - 8,
        bottom: b + distance * dy + 8,
      };
      const out =
        place.left < box.left ||
        place.right > box.right + 14 ||
        place.top < box.top - 8 ||
        place.bottom > box.bottom;
      const covers = avoided.some(
        (t) => t.left < place.right && t.right > place.left && t.top < place.bottom && t.bottom > place.top,
      );
      if (out || covers) continue;
      taken.push(place);
      if (distance > 18)
        svg.append(
          draw("line", {
            x1: a + 7 * dx,
            y1: b + 7 * dy,
            x2: a + (distance - 3) * dx,
            y2: b + (distance - 3) * dy,
            class: "axis",
          }),
        );
      svg.append(draw("text", { x: left, y: place.top + 12, class: "halo", "pointer-events": "none" }, name));
      return true;
    }
  }
  return false;
}

const trained = data.groups.findIndex((group) => group.starts.length);
let groupAt = Math.max(trained, 0);

section(
  "front",
  "Accuracy against tokens",
  "Each point is a result; bars are 95 % intervals. The dashed line is the best accuracy within each number " +
    "of tokens. Click a point, or press Enter on it, to select its run in all charts.",
  () => {
    if (!data.groups.length) return said("No result has both an accuracy and a number of tokens.");
    const group = data.groups[groupAt];
    const titles = data.groups.map((g) => g.title);
    const pick = dropDown("group", "Results measured alike:", titles, groupAt, (i) => (groupAt = i));
    const { svg, hidden } = frontChart(group);
    const note = `${hidden} name${hidden > 1 ? "s have" : " has"} no room here: the list of runs shows colours and shapes.`;
    const how = [node("summary", {}, "How these were measured"), node("p", {}, group.setup)];
    return [
      titles.length > 1 ? controls(pick) : null,
      node("figure", { class: "wide" }, svg, hidden ? node("figcaption", {}, note) : null),
      group.setup ? node("details", { class: "soft" }, how) : null,
    ];
  },
);

// A chart of lines over steps or caps, with names at their ends and a cursor that tells values.

// series: [{name, paint, dash, x, y, low, high, faint: [[y]], marks: {x, y}, index}], y may hold null.
function lineChart({
  title,
  unit,
  xLabel,
  series,
  xs,
  xTicks,
  log = false,
  percent = unit === "%",
  zero = false,
  width = 560,
  height = 320,
}) {
  const inside = (one) => one.y.filter((_, i) => one.x[i] >= xs[0] && one.x[i] <= xs[1]);
  const whole = (one) => [
    ...inside(one),
    ...(one.low || []),
    ...(one.high || []),
    ...(one.faint || []).flatMap((y) => inside({ ...one, y })),
    ...(one.marks ? inside(one.marks) : []),
  ];
  const ys = range(series.flatMap(whole), { percent, zero });
  const named = series.length > 1 && series.length * 15 <= height - 72;
  const right = named ? 24 + Math.max(...series.map((s) => textWidth(shorter(s.name, 22)))) : 16;
  const frame = axes({
    title: `${title}, ${unit}`,
    xLabel,
    xs,
    ys,
    xTicks,
    log,
    width,
    height,
    right,
    label: `${title} in ${unit} over ${xLabel}`,
  });
  const { svg, x, y, box } = frame;
  const id = `clip${(lineChart.count = (lineChart.count || 0) + 1)}`;
  svg.append(
    draw(
      "clipPath",
      { id },
      draw("rect", {
        x: box.left - 3,
        y: box.top - 3,
        width: box.right - box.left + 6,
        height: box.bottom - box.top + 6,
      }),
    ),
  );
  const inner = draw("g", { "clip-path": `url(#${id})` });
  svg.append(inner);
  for (const one of series) {
    for (const faint of one.faint || [])
      inner.append(
        draw("path", {
          d: path(one.x, faint, x, y),
          fill: "none",
          stroke: one.paint,
          "stroke-width": 1,
          opacity: 0.3,
        }),
      );
    inner.append(
      draw("path", {
        d: path(one.x, one.y, x, y),
        fill: "none",
        stroke: one.paint,
        "stroke-width": 2,
        "stroke-dasharray": one.dash || "",
      }),
    );
    one.x.forEach((at, i) => {
      if (one.low && one.low[i] !== null)
        inner.append(
          draw("line", {
            x1: x(at),
            x2: x(at),
            y1: y(one.low[i]),
            y2: y(one.high[i]),
            stroke: one.paint,
            "stroke-width": 1.2,
          }),
        );
      const alone = !one.marks && one.y[i] !== null && (one.low || one.x.length === 1);
      if (alone)
        inner.append(
          shape(Math.floor((one.index || 0) / COLOURS), x(at), y(one.y[i]), { fill: one.paint }, 4),
        );
    });
    if (one.marks)
      one.marks.x.forEach((at, i) => {
        if (one.marks.y[i] !== null)
          inner.append(
            shape(
              3,
              x(at),
              y(one.marks.y[i]),
              { fill: "var(--paper)", stroke: one.paint, "stroke-width": 1.6 },
              3.6,
            ),
          );
      });
  }
  if (named) nameEnds(frame, series, xs);
  cursor(frame, series, xs, title, unit, xLabel);
  return node("figure", {}, svg);
}

// The line through all points that are there; a missing one leaves a gap.
function path(xs, ys, x, y) {
  let text = "";
  let open = false;
  ys.forEach((value, i) => {
    if (value === null) {
      open = false;
      return;
    }
    text += `${open ? "L" : "M"}${x(xs[i]).toFixed(1)},${y(value).toFixed(1)}`;
    open = true;
  });
  return text;
}

function nameEnds({ svg, y, box }, series, xs) {
  const ends = series
    .map((one) => {
      const last = one.y.findLastIndex((value, i) => value !== null && one.x[i] <= xs[1]);
      return last < 0 ? null : { one, at: Math.min(Math.max(y(one.y[last]), box.top), box.bottom) };
    })
    .filter(Boolean)
    .sort((a, b) => a.at - b.at);
  let low = box.top - 10;
  for (const end of ends) low = end.place = Math.max(end.at, low + 15);
  let high = box.bottom + 15;
  for (const end of [...ends].reverse()) high = end.place = Math.min(end.place, high - 15);
  for (const { one, at, place } of ends) {
    svg.append(
      draw("path", {
        d: `M${box.right + 1},${at}L${box.right + 8},${place}L${box.right + 14},${place}`,
        fill: "none",
        stroke: one.paint,
        "stroke-width": 1.5,
      }),
    );
    svg.append(draw("text", { x: box.right + 18, y: place + 4 }, shorter(one.name, 22)));
  }
}

// The pointer, or the arrow keys, choose the nearest place; the tooltip lists all lines there.
function cursor({ svg, x, box }, series, xs, title, unit, xLabel) {
  const places = [...new Set(series.flatMap((s) => [...s.x, ...(s.marks ? s.marks.x : [])]))]
    .filter((v) => v >= xs[0] && v <= xs[1])
    .sort((a, b) => a - b);
  if (!places.length) return;
  const line = draw("line", { y1: box.top, y2: box.bottom, class: "cursor", visibility: "hidden" });
  svg.append(line);
  svg.setAttribute("tabindex", "0");
  let now = -1;
  const show = (index, at) => {
    now = Math.min(Math.max(index, 0), places.length - 1);
    line.setAttribute("x1", x(places[now]));
    line.setAttribute("x2", x(places[now]));
    line.setAttribute("visibility", "visible");
    const box = svg.getBoundingClientRect();
    const place = at || {
      x: box.left + (x(places[now]) / svg.viewBox.baseVal.width) * box.width,
      y: box.top + 20,
    };
    const lines = series.flatMap((s) => {
      const [i, j] = [s, s.marks || { x: [] }].map((one) => one.x.indexOf(places[now]));
      const told = [];
      if (i >= 0 && s.y[i] !== null)
        told.push([
          `${shorter(s.name, 40)}: ${interval([s.y[i], s.low && s.low[i], s.high && s.high[i]])}`,
          s.paint,
        ]);
      if (j >= 0 && s.marks.y[j] !== null)
        told.push([`${shorter(s.name, 40)}, evaluated: ${number(s.marks.y[j])}`, s.paint]);
      return told;
    });
    showTip(place, `${title}, ${unit}; ${xLabel} ${number(places[now], 6)}`, lines.slice(0, 24));
  };
  const hide = () => {
    line.setAttribute("visibility", "hidden");
    hideTip();
  };
  svg.addEventListener("pointermove", (event) => {
    const bounds = svg.getBoundingClientRect();
    const at = ((event.clientX - bounds.left) / bounds.width) * svg.viewBox.baseVal.width;
    const distance = (v) => Math.abs(x(v) - at);
    show(
      places.reduce((best, v, i) => (distance(v) < distance(places[best]) ? i : best), 0),
      { x: event.clientX, y: event.clientY },
    );
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -places.length, End: places.length }[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(now < 0 && move === 1 ? 0 : now + move);
  });
}

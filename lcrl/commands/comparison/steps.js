// Learning curves, and what each term of a reward paid, over the same range of steps.

const ends = data.models.flatMap((m) =>
  [m.curves.step, m.evaluations.step].map((steps) => steps?.at(-1) || 0),
);
const lastStep = Math.max(0, ...ends);
const span = { from: 0, to: lastStep };
const zoom = () => [span.from, span.to];
let metric = null; // of the fourth chart

function zoomControls(section) {
  const slide = (name, set) => {
    const id = `${section}${name}`;
    const told = node("output", {}, String(span[name]));
    const oninput = (event) => (told.textContent = event.target.value);
    const onchange = (event) => {
      set(Number(event.target.value));
      redraw(id);
    };
    const input = { type: "range", id, min: 0, max: lastStep, value: span[name], oninput, onchange };
    return node("label", {}, `${name} step`, node("input", input), told);
  };
  const all = () => {
    Object.assign(span, { from: 0, to: lastStep });
    redraw(`${section}all`);
  };
  return controls(
    slide("from", (v) => {
      span.from = Math.min(v, lastStep - 1);
      span.to = Math.max(span.to, span.from + 1);
    }),
    slide("to", (v) => {
      span.to = Math.max(v, 1);
      span.from = Math.min(span.from, span.to - 1);
    }),
    button("All steps", `${section}all`, all),
  );
}

function overSteps({ name, title, unit }, models) {
  const series = models.map((i) => {
    const { curves, evaluations } = data.models[i];
    const y = curves.mean?.[name];
    const marks = evaluations[name] ? { x: evaluations.step, y: evaluations[name] } : null;
    return { ...looks(i), x: y ? curves.step : [], y: y || [], faint: curves.seeds?.[name], marks };
  });
  const known = series.filter((one) => one.y.length || one.marks);
  return lineChart({ title, unit, xLabel: "training step", xs: zoom(), series: known });
}

const hasMetric =
  ({ name }) =>
  (model) =>
    model.curves.mean?.[name] || model.evaluations[name];

if (lastStep)
  section(
    "learning",
    "Learning curves",
    "Metrics of training answers, means over seeds (faint: single seeds); diamonds are evaluations. Move the " +
      "pointer or the arrow keys over a chart to read it.",
    () => {
      const known = data.metrics.filter((m) => chosen(hasMetric(m)).length);
      if (!known.length) return none("metrics of training steps");
      const main = known.filter((m) => data.main.includes(m.name));
      const others = known.filter((m) => !data.main.includes(m.name));
      const at = Math.max(
        others.findIndex((m) => m.name === metric),
        0,
      );
      const titles = others.map((m) => m.title);
      const pick = () => dropDown("metric", "Another metric:", titles, at, (i) => (metric = others[i].name));
      const shown = [...main, ...others.slice(at, at + 1)];
      return [
        zoomControls("learning"),
        others.length ? controls(pick(), node("span", { class: "soft" }, others[at].meaning)) : null,
        charts(shown.map((m) => overSteps(m, chosen()))),
      ];
    },
  );

const termsOf = (model) =>
  Object.entries(model.curves.mean || {}).filter(([name]) => name.startsWith("term/"));

function termsChart(i) {
  const { name, curves } = data.models[i];
  const series = termsOf(data.models[i]).map(([term, y], j) => ({
    ...looks(j),
    name: term.slice(5),
    x: curves.step,
    y,
  }));
  const title = shorter(name, 34);
  return lineChart({
    title,
    unit: "reward by term",
    xLabel: "training step",
    xs: zoom(),
    height: 260,
    series,
  });
}

if (data.models.some((m) => termsOf(m).length))
  section(
    "terms",
    "What each reward term paid",
    "The mean over training answers of what each stage of the reward added; the terms of a run sum to its reward.",
    () => {
      const models = chosen((m) => termsOf(m).length);
      if (!models.length) return none("a reward of several terms");
      return [zoomControls("terms"), charts(models.map(termsChart))];
    },
  );
else
  section(
    "terms",
    "What each reward term paid",
    "No run here logged the terms of a reward of several stages.",
  );

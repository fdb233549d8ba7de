// Curves over caps and over budgets that prompts ask for, and the paths of merged models.

function whiskers(points, key, scale) {
  const of = (place) => points.map((p) => (p[key][place] === null ? null : scale * p[key][place]));
  return { y: of(0), low: of(1), high: of(2) };
}

// Accuracy and tokens of models over `at` of their points.
function byBudget(models, points, at, xLabel) {
  const places = [...new Set(models.flatMap((i) => points(data.models[i]).map(at)))].sort((a, b) => a - b);
  const [low, high] = [places[0], places.at(-1)];
  const xs = low < high ? [low, high] : [low / 2, low * 1.5];
  const log = low > 0 && high / low > 6;
  const chart = (key, title, unit, scale) => {
    const series = models.map((i) => {
      const own = points(data.models[i]);
      return { ...looks(i), x: own.map(at), ...whiskers(own, key, scale) };
    });
    return lineChart({ title, unit, xLabel, xs, xTicks: places, log, zero: key === "tokens", series });
  };
  return charts(chart("accuracy", "accuracy", "%", 100), chart("tokens", "mean length", "tokens", 1));
}

const withTarget = (model) => model.asked.filter((p) => p.target !== null);

if (data.models.some((m) => m.budgets.length))
  section("budgets", "Budget curves", "Evaluations at several caps, where sampling stops.", () => {
    const models = chosen((m) => m.budgets.length);
    const show = () =>
      byBudget(
        models,
        (m) => m.budgets,
        (p) => p.cap,
        "cap, tokens",
      );
    return models.length ? show() : none("an evaluation at caps");
  });

if (data.models.some((m) => withTarget(m).length))
  section(
    "asked",
    "Budgets that the prompt asked for",
    "Accuracy and tokens spent over the tokens that the prompt asked for.",
    () => {
      const models = chosen((m) => withTarget(m).length);
      const show = () => byBudget(models, withTarget, (p) => p.target, "tokens asked for");
      return models.length ? show() : none("an evaluation at budgets in the prompt");
    },
  );

function pathChart(one, i) {
  const x = one.points.map((p) => p.tokens[0]);
  const y = one.points.map((p) => 100 * p.accuracy[0]);
  const frame = axes({
    title: `${shorter(one.name, 30)}, at most ${one.cap} tokens: accuracy, %`,
    xLabel: "mean length of an answer, tokens",
    xs: range(x),
    ys: range(y, { percent: true }),
  });
  const { svg, box } = frame;
  svg.setAttribute("role", "group");
  const line = { d: path(x, y, frame.x, frame.y), fill: "none", stroke: colour(i), "stroke-width": 2 };
  svg.append(draw("path", line));
  const taken = [];
  one.points.forEach((p, j) => {
    const [a, b, name] = [frame.x(x[j]), frame.y(y[j]), number(Number(p.strength))];
    const dot = shape(0, a, b, { fill: colour(i), tabindex: 0 }, 4);
    hint(dot, `strength ${name}`, () => told(p));
    svg.append(dot);
    nameBeside(svg, [a, b, name], taken, box);
  });
  return node("figure", {}, svg);
}

if (data.paths.length)
  section(
    "paths",
    "Paths of merged models",
    "Models on the line through two others, at each cap; the numbers are strengths.",
    () => charts(data.paths.map(pathChart)),
  );

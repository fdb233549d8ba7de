// The sections of the page, and which runs they show.

const trained = data.groups.findIndex((group) => group.starts.length);
const page = { group: Math.max(trained, 0), metric: null, from: 0, to: Infinity };
const everyone = data.models.map((_, i) => i);
const onFront = [...new Set(data.groups.flatMap((g) => g.points.filter((p) => p.front).map((p) => p.model)))];
const FEW = 7;
const selected = new Set(
  everyone.length <= FEW ? everyone : [...new Set([...onFront, ...everyone])].slice(0, FEW),
);
const lastStep = Math.max(
  0,
  ...data.models.flatMap((m) =>
    [m.curves.step, m.evaluations.step].map((steps) => (steps && steps.length ? steps.at(-1) : 0)),
  ),
);

const chosen = () => everyone.filter((i) => selected.has(i));
const main = document.querySelector("main");
const redraws = [];

function section(id, title, intro, render) {
  const body = node("div", {});
  document
    .getElementById("sections")
    .append(
      node(
        "section",
        { id, "aria-label": title },
        node("h2", {}, title),
        node("p", { class: "soft" }, intro),
        body,
      ),
    );
  const show = (focus) => {
    add(body, []).replaceChildren();
    add(body, [render(show)]);
    if (focus) document.getElementById(focus)?.focus();
  };
  redraws.push(show);
}

function redraw() {
  for (const one of redraws) one();
  for (const i of everyone) document.getElementById(`run${i}`).checked = selected.has(i);
}

function toggle(model, label) {
  selected.has(model) ? selected.delete(model) : selected.add(model);
  hideTip();
  redraw();
  const again = [...document.querySelectorAll("[data-key]")].find((one) => one.dataset.key === label);
  if (again) again.focus({ preventScroll: true });
}

function choose(models) {
  selected.clear();
  for (const i of models) selected.add(i);
  redraw();
}

function runList() {
  const rows = data.models.map((model, i) => {
    const line = draw("line", {
      x1: 1,
      x2: 27,
      y1: 8,
      y2: 8,
      stroke: colour(i),
      "stroke-width": 2,
      "stroke-dasharray": dash(i),
    });
    const box = node("input", { type: "checkbox", id: `run${i}`, onchange: () => toggle(i) });
    return node(
      "li",
      {},
      node(
        "label",
        { title: model.notes.join("\n") },
        box,
        draw("svg", { width: 28, height: 16, "aria-hidden": "true" }, line, mark(i, 14, 8, {}, 4.5)),
        model.name,
      ),
    );
  });
  const button = (text, models) => node("button", { onclick: () => choose(models) }, text);
  const theme = node(
    "button",
    {
      onclick: () => {
        const dark = document.documentElement.dataset.theme
          ? document.documentElement.dataset.theme === "dark"
          : matchMedia("(prefers-color-scheme: dark)").matches;
        document.documentElement.dataset.theme = dark ? "light" : "dark";
      },
    },
    "Light or dark",
  );
  return [
    node("h2", { style: "margin-top:0" }, "Runs"),
    node(
      "div",
      { class: "controls" },
      button("All", everyone),
      button("None", []),
      button("Front", onFront),
      theme,
    ),
    node("ul", { class: "runs" }, rows),
  ];
}

const missing = (text) => node("p", { class: "soft" }, text);
const none = (models) =>
  chosen().length ? missing(`None of the selected runs has ${models}.`) : missing("No run is selected.");

section(
  "front",
  "Accuracy against tokens",
  "Each point is a result; bars are 95 % intervals. The dashed line is the best accuracy within each number of tokens. Click a point, or press Enter on it, to select its run in all charts.",
  (again) => {
    if (!data.groups.length) return missing("No result has both an accuracy and a number of tokens.");
    const group = data.groups[page.group];
    const pick =
      data.groups.length > 1 &&
      node(
        "div",
        { class: "controls" },
        node(
          "label",
          {},
          "Results measured alike:",
          node(
            "select",
            {
              id: "group",
              onchange: (event) => {
                page.group = Number(event.target.value);
                again("group");
              },
            },
            data.groups.map((g, i) => node("option", { value: i, selected: i === page.group }, g.title)),
          ),
        ),
      );
    const { svg, hidden } = frontChart(group, selected, toggle);
    const note = hidden
      ? node(
          "figcaption",
          {},
          `${hidden} name${hidden > 1 ? "s have" : " has"} no room here: the list of runs shows colours and shapes.`,
        )
      : null;
    const setup =
      group.setup &&
      node(
        "details",
        { class: "soft" },
        node("summary", {}, "How these were measured"),
        node("p", {}, group.setup),
      );
    return [pick || null, node("figure", { class: "wide" }, svg, note), setup || null];
  },
);

function whiskers(points, key, scale) {
  const of = (place) => points.map((p) => (p[key][place] === null ? null : scale * p[key][place]));
  return { y: of(0), low: of(1), high: of(2) };
}

function byBudget(models, points, at, xLabel, options) {
  const caps = [...new Set(models.flatMap((i) => points(i).map(at)))].sort((a, b) => a - b);
  const log = caps[0] > 0 && caps.at(-1) / caps[0] > 6;
  const xs = caps.length > 1 ? [caps[0], caps.at(-1)] : [caps[0] / 2, caps[0] * 1.5];
  const chart = (key, title, unit, scale) =>
    lineChart({
      title,
      unit,
      xLabel,
      xs,
      xTicks: caps,
      log,
      zero: key === "tokens",
      series: models.map((i) => ({
        name: data.models[i].name,
        paint: colour(i),
        dash: dash(i),
        index: i,
        x: points(i).map(at),
        ...whiskers(points(i), key, scale),
      })),
      ...options,
    });
  return node(
    "div",
    { class: "charts" },
    chart("accuracy", "accuracy", "%", 100),
    chart("tokens", "mean length", "tokens", 1),
  );
}

if (data.models.some((m) => m.budgets.length))
  section("budgets", "Budget curves", "Evaluations at several caps, where sampling stops.", () => {
    const models = chosen().filter((i) => data.models[i].budgets.length);
    if (!models.length) return none("an evaluation at caps");
    return byBudget(
      models,
      (i) => data.models[i].budgets,
      (p) => p.cap,
      "cap, tokens",
    );
  });

const withTarget = (i) => data.models[i].asked.filter((p) => p.target !== null);
if (everyone.some((i) => withTarget(i).length))
  section(
    "asked",
    "Budgets that the prompt asked for",
    "Tokens spent and accuracy over the tokens that the prompt asked for.",
    () => {
      const models = chosen().filter((i) => withTarget(i).length);
      if (!models.length) return none("an evaluation at budgets in the prompt");
      return byBudget(models, withTarget, (p) => p.target, "tokens asked for");
    },
  );

if (data.paths.length)
  section(
    "paths",
    "Paths of merged models",
    "Models on the line through two others, at each cap; the numbers are strengths.",
    () =>
      node(
        "div",
        { class: "charts" },
        data.paths.map((one, i) => {
          const x = one.points.map((p) => p.tokens[0]);
          const y = one.points.map((p) => 100 * p.accuracy[0]);
          const frame = axes({
            title: `${shorter(one.name, 30)}, at most ${one.cap} tokens: accuracy, %`,
            xLabel: "mean length of an answer, tokens",
            xs: range(x),
            ys: range(y, { percent: true }),
          });
          frame.svg.setAttribute("role", "group");
          frame.svg.append(
            draw("path", {
              d: path(x, y, frame.x, frame.y),
              fill: "none",
              stroke: colour(i),
              "stroke-width": 2,
            }),
          );
          const taken = [];
          one.points.forEach((p, j) => {
            const dot = shape(0, frame.x(x[j]), frame.y(y[j]), { fill: colour(i), tabindex: 0 }, 4);
            hint(dot, `strength ${number(Number(p.strength))}`, () => told(p));
            frame.svg.append(dot);
            nameBeside(
              frame.svg,
              [frame.x(x[j]), frame.y(y[j]), number(Number(p.strength))],
              taken,
              frame.box,
            );
          });
          return node("figure", {}, frame.svg);
        }),
      ),
  );

function overSteps(name, models, title, unit) {
  const series = models
    .map((i) => {
      const { curves, evaluations } = data.models[i];
      const there = curves.mean && curves.mean[name];
      return {
        name: data.models[i].name,
        paint: colour(i),
        dash: dash(i),
        index: i,
        x: there ? curves.step : [],
        y: there || [],
        faint: curves.seeds && curves.seeds[name],
        marks: evaluations[name] ? { x: evaluations.step, y: evaluations[name] } : null,
      };
    })
    .filter((s) => s.y.length || s.marks);
  return series.length ? lineChart({ title, unit, xLabel: "training step", xs: zoom(), series }) : null;
}

const zoom = () => [Math.min(page.from, lastStep - 1), Math.min(page.to, lastStep)];

function zoomControls(again, id) {
  const [from, to] = zoom();
  const slide = (name, value, set) => {
    const told = node("output", {}, String(value));
    const input = node("input", {
      type: "range",
      id: `${id}${name}`,
      min: 0,
      max: lastStep,
      value,
      oninput: (event) => {
        told.textContent = event.target.value;
      },
      onchange: (event) => {
        set(Number(event.target.value));
        again(`${id}${name}`);
      },
    });
    return node("label", {}, `${name} step`, input, told);
  };
  return node(
    "div",
    { class: "controls" },
    slide("from", from, (v) => {
      page.from = v;
      page.to = Math.max(page.to, v + 1);
    }),
    slide("to", to, (v) => {
      page.to = Math.max(v, 1);
      page.from = Math.min(page.from, page.to - 1);
    }),
    node(
      "button",
      {
        id: `${id}all`,
        onclick: () => {
          page.from = 0;
          page.to = Infinity;
          again(`${id}all`);
        },
      },
      "All steps",
    ),
  );
}

if (lastStep)
  section(
    "learning",
    "Learning curves",
    "Metrics of training answers, means over seeds (faint: single seeds); diamonds are evaluations. Move the pointer or the arrow keys over a chart to read it.",
    (again) => {
      const models = chosen();
      const known = data.metrics.filter((m) =>
        models.some((i) => data.models[i].curves.mean?.[m.name] || data.models[i].evaluations[m.name]),
      );
      if (!known.length) return none("metrics of training steps");
      const others = known.filter((m) => !data.main.includes(m.name));
      const other = others.find((m) => m.name === page.metric) || others[0];
      const pick =
        other &&
        node(
          "div",
          { class: "controls" },
          node(
            "label",
            {},
            "Another metric:",
            node(
              "select",
              {
                id: "metric",
                onchange: (event) => {
                  page.metric = event.target.value;
                  again("metric");
                },
              },
              others.map((m) => node("option", { value: m.name, selected: m === other }, m.title)),
            ),
          ),
          node("span", { class: "soft" }, other.meaning),
        );
      const charts = [...known.filter((m) => data.main.includes(m.name)), other]
        .filter(Boolean)
        .map((m) => overSteps(m.name, models, m.title, m.unit));
      return [zoomControls(again, "learning"), pick, node("div", { class: "charts" }, charts)];
    },
  );

const termsOf = (i) =>
  Object.entries(data.models[i].curves.mean || {}).filter(([name]) => name.startsWith("term/"));
if (everyone.some((i) => termsOf(i).length))
  section(
    "terms",
    "What each reward term paid",
    "The mean over training answers of what each stage of the reward added; the terms of a run sum to its reward.",
    (again) => {
      const models = chosen().filter((i) => termsOf(i).length);
      if (!models.length) return none("a reward of several terms");
      return [
        zoomControls(again, "terms"),
        node(
          "div",
          { class: "charts" },
          models.map((i) =>
            lineChart({
              title: shorter(data.models[i].name, 34),
              unit: "reward by term",
              xLabel: "training step",
              xs: zoom(),
              height: 260,
              series: termsOf(i).map(([name, y], j) => ({
                name: name.slice(5),
                paint: colour(j),
                dash: dash(j),
                x: data.models[i].curves.step,
                y,
              })),
            }),
          ),
        ),
      ];
    },
  );
else
  section(
    "terms",
    "What each reward term paid",
    "No run here logged terms of its reward: a run has them if its reward is built of stages, and was trained by a version that logs them.",
    () => null,
  );

if (data.histograms.edges)
  section(
    "lengths",
    "Lengths of right and wrong answers",
    "Bars above the line are right answers, bars below it wrong ones, in % of the run's answers; the last bin holds all longer ones.",
    () => {
      const models = chosen().filter((i) => data.histograms.models[i]);
      if (!models.length) return none("answers with lengths");
      return node(
        "div",
        { class: "charts small" },
        models.map((i) => histogram(data.histograms.models[i], data.histograms.edges, data.models[i].name)),
      );
    },
  );
else
  section(
    "lengths",
    "Lengths of right and wrong answers",
    "No folder here holds answers or samples.",
    () => null,
  );

if (data.samples.length)
  section("samples", "Samples side by side", "Answers of the selected runs to the same prompt.", (again) => {
    const models = chosen();
    return models.length ? samplesView(models, again) : none("answers");
  });

add(document.querySelector("aside"), runList());
redraw();

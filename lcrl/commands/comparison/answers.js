// Histograms of lengths by right and wrong, and the same prompt answered by several runs.

// Right answers above the line and wrong ones below it, in per cent of the run's answers.
function histogram(i) {
  const { name } = data.models[i];
  const { edges } = data.histograms;
  const found = data.histograms.models[i];
  const total = [...found.right, ...found.wrong].reduce((a, b) => a + b, 0);
  const share = (count) => (100 * count) / total;
  const middles = edges.slice(1).map((edge, j) => (edge + edges[j]) / 2);
  const side = (label, counts, sign, paint) => ({
    name: label,
    x: middles,
    y: counts.map(share),
    sign,
    paint,
  });
  const right = side("right", found.right, 1, "var(--c0)");
  const wrong = side(found.judged ? "wrong" : "not judged", found.wrong, -1, "var(--c1)");
  const sides = [right, wrong].filter((one) => Math.max(...one.y) > 0);
  const most = Math.max(...sides.flatMap((one) => one.y));
  const end = (one) => (sides.includes(one) ? one.sign * 1.12 * Math.max(0.15 * most, ...one.y) : 0);
  const frame = axes({
    title: `${shorter(name, 24)}, % of answers`,
    xLabel: "length of an answer, tokens",
    xs: [0, edges.at(-1)],
    ys: [end(wrong), end(right)],
    width: 400,
    height: 250,
    yTick: (v) => number(Math.abs(v)),
    label: `Lengths of answers of ${name}, in % of its answers`,
  });
  const { svg, x, y, box } = frame;
  const wide = Math.max(x(edges[1]) - x(0) - 1.6, 1);
  let key = box.right;
  for (const one of [...sides].reverse()) {
    one.y.forEach((percent, j) => {
      const tall = y(0) - y(percent);
      const top = one.sign > 0 ? y(0) - tall : y(0);
      if (percent)
        svg.append(
          draw("rect", { x: x(edges[j]) + 0.8, width: wide, y: top, height: tall, fill: one.paint }),
        );
    });
    key -= textWidth(one.name);
    svg.append(draw("rect", { x: key - 13, y: 7, width: 9, height: 9, fill: one.paint }));
    svg.append(draw("text", { x: key, y: 15 }, one.name));
    key -= 24;
  }
  svg.append(draw("line", { x1: box.left, x2: box.right, y1: y(0), y2: y(0), class: "axis" }));
  cursor(frame, sides, [0, edges.at(-1)], name, "% of answers", "tokens near");
  const mean = (one, j) => (found.means[j] === null ? [] : `${number(found.means[j])} tokens ${one.name}`);
  const text = `On average ${[right, wrong].flatMap(mean).join(", ")}; ${total} answers of ${found.words}.`;
  return node("figure", {}, svg, node("figcaption", {}, text));
}

const samples = { at: 0, disagree: false };

function samplesView() {
  const answered = (row) => chosen((_, i) => row.answers[i]);
  const differ = (row) => new Set(answered(row).map((i) => row.answers[i][0][1])).size > 1;
  const rows = data.samples.filter((row) => answered(row).length && (!samples.disagree || differ(row)));
  const onchange = (event) => {
    Object.assign(samples, { at: 0, disagree: event.target.checked });
    redraw("disagree");
  };
  const box = node("input", { type: "checkbox", id: "disagree", checked: samples.disagree, onchange });
  const only = node("label", {}, box, "only prompts on which selected runs disagree");
  if (!rows.length) return [controls(only), said("No prompt is left.")];
  samples.at = Math.min(samples.at, rows.length - 1);
  const move = (step, id) => () => {
    samples.at = (samples.at + step + rows.length) % rows.length;
    redraw(id);
  };
  const titles = rows.map((row, i) => `${i + 1}. ${row.prompt.replace(/\s+/g, " ").slice(0, 70)}`);
  const row = rows[samples.at];
  return [
    controls(
      button("Previous", "previous", move(-1, "previous")),
      dropDown("prompt", "Prompt:", titles, samples.at, (i) => (samples.at = i)),
      button("Next", "next", move(1, "next")),
      only,
    ),
    node("h3", {}, "Prompt"),
    node("pre", { tabindex: 0 }, row.prompt),
    row.reference ? said(`Reference: ${row.reference}`) : null,
    node(
      "div",
      { class: "columns", tabindex: 0 },
      answered(row).map((i) => column(i, row.answers[i])),
    ),
  ];
}

function column(i, answers) {
  const style = `border-top-color:${colour(i)}`;
  return node("article", { style }, node("h3", {}, data.models[i].name), answers.map(answer));
}

function answer([text, correct, tokens, truncated]) {
  const verdict = correct === null ? "not judged" : correct ? "\u2713 right" : "\u2717 wrong";
  const style = correct === null ? null : `color:var(--c${correct ? 0 : 1})`;
  const length = tokens === null ? "" : `, ${tokens} token${tokens === 1 ? "" : "s"}`;
  const told = node("span", { class: "verdict", style }, verdict);
  const cut = truncated ? ", cut at its cap" : "";
  return [node("div", {}, told, length, cut), node("pre", { tabindex: 0 }, text || "(empty)")];
}

if (data.histograms.edges)
  section(
    "lengths",
    "Lengths of right and wrong answers",
    "Bars above the line are right answers, bars below it wrong ones, in % of the run's answers; the last bin " +
      "holds all longer ones.",
    () => {
      const models = chosen((_, i) => data.histograms.models[i]);
      if (!models.length) return none("answers with lengths");
      return node("div", { class: "charts small" }, models.map(histogram));
    },
  );
else section("lengths", "Lengths of right and wrong answers", "No folder here holds answers with lengths.");

if (data.samples.length)
  section("samples", "Samples side by side", "Answers of the selected runs to the same prompt.", () =>
    selected.size ? samplesView() : none("answers"),
  );

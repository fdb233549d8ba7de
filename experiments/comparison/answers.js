// Histograms of lengths by right and wrong, and the same prompt answered by several runs.

function histogram(found, edges, name) {
  const total = Math.max(
    [...found.right, ...found.wrong].reduce((a, b) => a + b, 0),
    1,
  );
  const share = (count) => (100 * count) / total;
  const up = Math.max(...found.right.map(share), 0);
  const down = Math.max(...found.wrong.map(share), 0);
  const most = Math.max(up, down, 1);
  const ys = [down ? -1.12 * Math.max(down, 0.15 * most) : 0, 1.12 * Math.max(up, 0.15 * most)];
  const frame = axes({
    title: `${shorter(name, 24)}, % of answers`,
    xLabel: "length of an answer, tokens",
    xs: [0, edges.at(-1)],
    ys,
    width: 400,
    height: 250,
    yTick: (v) => number(Math.abs(v)),
    label: `Lengths of answers of ${name}, in % of its answers`,
  });
  const { svg, x, y, box } = frame;
  const sides = [
    ["right", 1, "var(--c0)"],
    [found.judged ? "wrong" : "not judged", -1, "var(--c1)"],
  ];
  sides.forEach(([, sign, fill], side) => {
    (side ? found.wrong : found.right).forEach((count, i) => {
      if (!count) return;
      const tall = Math.abs(y(share(count)) - y(0));
      svg.append(
        draw("rect", {
          x: x(edges[i]) + 0.8,
          width: Math.max(x(edges[i + 1]) - x(edges[i]) - 1.6, 1),
          y: sign > 0 ? y(0) - tall : y(0),
          height: tall,
          fill,
        }),
      );
    });
  });
  let end = box.right;
  for (const [label, sign, fill] of [...sides].reverse()) {
    if (!(sign > 0 ? up : down)) continue;
    end -= textWidth(label);
    svg.append(
      draw("rect", { x: end - 13, y: 7, width: 9, height: 9, fill }),
      draw("text", { x: end, y: 15 }, label),
    );
    end -= 24;
  }
  svg.append(draw("line", { x1: box.left, x2: box.right, y1: y(0), y2: y(0), class: "axis" }));
  const middles = edges.slice(1).map((edge, i) => (edge + edges[i]) / 2);
  const series = sides.map(([label, sign, paint]) => ({
    name: label,
    paint,
    x: middles,
    y: (sign > 0 ? found.right : found.wrong).map(share),
  }));
  cursor(frame, series, [0, edges.at(-1)], name, "% of answers", "tokens near");
  const means = found.means
    .map((mean, i) => (mean === null ? null : `${number(mean)} tokens ${sides[i][0]}`))
    .filter(Boolean);
  return node(
    "figure",
    {},
    svg,
    node("figcaption", {}, `On average ${means.join(", ")}; ${total} answers of ${found.words}.`),
  );
}

const samplesState = { at: 0, disagree: false };

function samplesView(chosen, again) {
  const answered = (row) => chosen.filter((i) => row.answers[i]);
  const differ = (row) => new Set(answered(row).map((i) => row.answers[i][0][1])).size > 1;
  const rows = data.samples.filter((row) => answered(row).length && (!samplesState.disagree || differ(row)));
  const toggle = node("input", {
    type: "checkbox",
    id: "disagree",
    onchange: (event) => {
      samplesState.disagree = event.target.checked;
      samplesState.at = 0;
      again("disagree");
    },
  });
  toggle.checked = samplesState.disagree;
  const only = node("label", {}, toggle, "only prompts on which selected runs disagree");
  if (!rows.length)
    return [node("div", { class: "controls" }, only), node("p", { class: "soft" }, "No prompt is left.")];
  samplesState.at = Math.min(samplesState.at, rows.length - 1);
  const go = (at, focus) => {
    samplesState.at = (at + rows.length) % rows.length;
    again(focus);
  };
  const choose = node(
    "select",
    { id: "prompt", "aria-label": "prompt", onchange: (event) => go(Number(event.target.value), "prompt") },
    rows.map((row, i) =>
      node("option", { value: i }, `${i + 1}. ${shorter(row.prompt.replace(/\s+/g, " ").slice(0, 70), 70)}`),
    ),
  );
  choose.value = samplesState.at;
  const row = rows[samplesState.at];
  const controls = node(
    "div",
    { class: "controls" },
    node("button", { id: "previous", onclick: () => go(samplesState.at - 1, "previous") }, "Previous"),
    choose,
    node("button", { id: "next", onclick: () => go(samplesState.at + 1, "next") }, "Next"),
    only,
  );
  const columns = answered(row).map((i) =>
    node(
      "article",
      { style: `border-top-color:${colour(i)}` },
      node("h3", {}, data.models[i].name),
      row.answers[i].map(answer),
    ),
  );
  return [
    controls,
    node("h3", {}, "Prompt"),
    node("pre", { tabindex: 0 }, row.prompt),
    row.reference ? node("p", { class: "soft" }, `Reference: ${row.reference}`) : null,
    node("div", { class: "columns", tabindex: 0 }, columns),
  ];
}

function answer([text, correct, tokens, truncated]) {
  const verdict = correct === null ? "not judged" : correct ? "\u2713 right" : "\u2717 wrong";
  const paint = correct === null ? "inherit" : correct ? "var(--c0)" : "var(--c1)";
  const length = tokens === null ? "" : `, ${tokens} token${tokens === 1 ? "" : "s"}`;
  return [
    node(
      "div",
      {},
      node("span", { class: "verdict", style: `color:${paint}` }, verdict),
      `${length}${truncated ? ", cut at its cap" : ""}`,
    ),
    node("pre", { tabindex: 0 }, text || "(empty)"),
  ];
}

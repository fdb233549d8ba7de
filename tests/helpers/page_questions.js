// What tests ask of the page in a browser, after its own scripts; see tests/comparison_test.py.

const key = (name) => new KeyboardEvent("keydown", { key: name, bubbles: true });
const overlapping = () =>
  [...document.querySelectorAll("svg.chart")].flatMap((svg) => {
    const texts = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
    const frame = svg.getBoundingClientRect();
    const out = texts
      .filter(([, b]) => b.left < frame.left - 1 || b.right > frame.right + 1 || b.bottom > frame.bottom + 1)
      .map(([t]) => `${t} leaves its chart`);
    const pairs = texts.flatMap(([t, a], i) =>
      texts
        .slice(i + 1)
        .filter(
          ([, b]) =>
            Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
            Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3,
        )
        .map(([u]) => `${t} and ${u}`),
    );
    return [...out, ...pairs];
  });
const answer = {
  title: document.title,
  charts: document.querySelectorAll("svg.chart").length,
  overlaps: overlapping(),
};
answer.sections = [...document.querySelectorAll("#sections > section")].map((s) => [
  s.id,
  s.querySelectorAll("svg.chart").length,
  s.querySelector("div").textContent.length,
]);
answer.selected = [...selected].length;
answer.checked = document.querySelectorAll(".runs input:checked").length;
const first = () => document.querySelector("svg .point");
first()?.dispatchEvent(new MouseEvent("click", { bubbles: true }));
answer.clicked = [...selected].length;
answer.focused = document.activeElement.dataset.key;
first()?.dispatchEvent(key("Enter"));
answer.entered = [...selected].length;
first()?.dispatchEvent(new PointerEvent("pointermove", { clientX: 50, clientY: 50 }));
answer.hover = tip.hidden ? null : tip.textContent;
const chart = document.querySelector("#learning svg.chart");
if (chart) {
  chart.dispatchEvent(key("End"));
  answer.cursor = tip.textContent;
}
const slide = document.getElementById("learningto");
if (slide) {
  slide.value = 10;
  slide.dispatchEvent(new Event("change"));
  answer.zoomed = zoom();
}
choose(everyone);
answer.all = overlapping();
choose([]);
answer.none = document.getElementById("front").querySelectorAll(".point.off").length;
answer.errors = errors;
document.body.append(node("pre", { id: "answer" }, JSON.stringify(answer)));

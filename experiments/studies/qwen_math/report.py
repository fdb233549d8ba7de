"""Makes the pictures and tables of the study from results/, for its page and the project's README.

  python -m experiments.studies.qwen_math.report

What is measured stands between markers in both pages; the rest of them is written by hand.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.studies.qwen_math import claims, pictures
from experiments.studies.qwen_math.choose import chosen
from experiments.studies.qwen_math.records import (
  SEEDS,
  TASKS,
  Group,
  Study,
  change,
  lines,
  read,
  studies,
)
from lcrl.evaluation import Estimate, accuracy_efficiency_score, effort_report
from lcrl.evaluation.effort_curve import effort_measures
from lcrl.evaluation.tables import signed, to_markdown

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
COMMAND = "python -m experiments.studies.qwen_math.report"
SHOWN = 300  # characters of an answer
README_ROWS = 6


def table(study: Study) -> str:
  """A row a method and coefficient, those with the most accurate answers to GSM8K first."""
  head = ["method", "seeds", *TASKS.values(), "tokens saved", "points", "AES", "GPU-s", "sampled"]
  start = [study.start] if study.start else []
  ranked = sorted(study.groups, key=lambda g: -accuracy(g))
  return to_markdown((head, [row(study, group) for group in (*start, *ranked)]))


def accuracy(group: Group) -> float:
  """On GSM8K test; at the largest budget that was asked for."""
  points = group.points(gsm8k(group))
  return float(np.mean([p["accuracy"] for p in points]))


def gsm8k(group: Group) -> str:
  budgets = group.asked("gsm8k")
  return budgets[max(budgets)] if budgets else "gsm8k"


def row(study: Study, group: Group) -> list[str]:
  label = "the start" if group is study.start else group.label
  if budgets := group.asked("gsm8k"):
    label += f" (asked for {max(budgets)})"
  cells = [cell(group, gsm8k(group) if task == "gsm8k" else task) for task in TASKS]
  spent = [mean_of(group, "train_s", "{:.0f}"), mean_of(group, "sampled_tokens", "{:.1f} M", 1e-6)]
  return [label, str(len(group.runs)), *cells, *against(study.grpo, group), *spent]


def cell(group: Group, task: str) -> str:
  """Accuracy with half its interval, at tokens."""
  if not group.points(task):
    return "-"
  value, low, high = (100 * x for x in group.mean(task, "accuracy"))
  return f"{value:.1f} ± {(high - low) / 2:.1f} at {group.mean(task, 'tokens').value:.0f}"


class Against(NamedTuple):
  """On GSM8K test, against correctness alone from the same start."""

  saved: float  # share of its tokens
  accuracy: Estimate  # more than it has
  score: float  # AES


def compared(grpo: Group, group: Group) -> Against:
  own, base = group.points(gsm8k(group)), grpo.points("gsm8k")
  tokens = float(np.mean([p["tokens"] for p in base]))
  right = float(np.mean([p["accuracy"] for p in base]))
  fewer, more = change(base, own, "tokens").value, change(own, base, "accuracy")
  score = accuracy_efficiency_score(right + more.value, tokens - fewer, right, tokens)
  return Against(fewer / tokens, more, score)


def against(grpo: Group | None, group: Group) -> list[str]:
  """Cells: tokens saved, points of accuracy, AES."""
  if grpo is None or group.method in ("grpo", "warmup"):
    return ["-", "-", "-"]
  saved, accuracy, score = compared(grpo, group)
  points, low, high = (signed(100 * x) for x in accuracy)
  return [f"{round(100 * saved)} %", f"{points} ({low} to {high})", f"{score:.2f}"]


def mean_of(group: Group, name: str, text: str, scale: float = 1.0) -> str:
  found = [run[name] for run in group.runs if name in run]
  return text.format(scale * float(np.mean(found))) if found else "-"


def claims_table(study: Study) -> str:
  head = ["method, paper", "claim", "here", "numbers", "why it may differ"]
  return to_markdown((head, [[*verdict] for verdict in claims.verdicts(study)]))


def curves(study: Study) -> Iterator[str]:
  """On GSM8K test, each policy that was asked for budgets beside the runs with one."""
  for group in pictures.by_budget(study).get("gsm8k", ()):
    points, found = study.curve(group)
    measures = effort_measures(points)
    spent = [f"{share:.2f}" for share in measures["calibration"]]
    yield wrapped(
      f"{effort_report.compared(group.label, found)} Its longest mean answer has "
      f"{measures['range']:.2f} times the tokens of its shortest; for each token asked it spends "
      f"{', '.join(spent)}."
    )
    yield to_markdown(effort_report.front_table(found))
    if group.asked("math500"):
      there = effort_report.compared(group.label, study.curve(group, "math500")[1])
      yield wrapped(f"On {TASKS['math500']}: {there}")


def collapsed(study: Study) -> list[str]:
  return [g.label for g in study.groups if g.collapsed]


def caveat(study: Study, choice: Mapping[str, Any]) -> str:
  """What the intervals and coefficients are."""
  counts = sorted({len(g.runs) for g in study.groups})
  few = "" if counts[0] >= SEEDS else " over problems alone for fewer than three seeds"
  how = "chosen on validation problems" if choice else "not chosen on validation problems yet"
  seeds = " to ".join(map(str, [*dict.fromkeys((counts[0], counts[-1]))]))
  seeds += " seed" if counts[-1] == 1 else " seeds"
  fell = "; ".join(collapsed(study))
  gone = f" Below 5 % and not drawn: {fell}." if fell else ""
  return (
    f"{sum(len(g.runs) for g in study.groups)} runs, {seeds} each; intervals of 95 %{few}. "
    f"Coefficients were {how}.{gone}"
  )


def chosen_values(folder: Path) -> dict[str, float | None]:
  """What the sweep on validation problems chose; nothing where there was none."""
  file = folder / "choice.jsonl"
  return chosen(lines(file)) if file.exists() else {}


def samples(study: Study) -> Iterator[str]:
  """Answers side by side with GRPO's: one that got shorter and stayed right, one that broke."""
  answers = lambda group: {s["problem"]: s for s in group.runs[0].get("samples", ())}
  if study.grpo is None:
    return
  before = answers(study.grpo)
  pairs = [
    (group, before[problem], after)
    for group in study.groups
    if group.method != "grpo"
    for problem, after in answers(group).items()
    if problem in before and before[problem]["correct"]
  ]
  right = [x for x in pairs if x[2]["correct"] and x[2]["tokens"] < x[1]["tokens"]]
  wrong = [x for x in pairs if not x[2]["correct"]]
  if right:
    yield "**Shorter, and right**\n\n" + beside(
      *min(right, key=lambda x: x[2]["tokens"] / x[1]["tokens"])
    )
  if wrong:
    yield "**Broken**\n\n" + beside(*max(wrong, key=lambda x: x[1]["tokens"] - x[2]["tokens"]))


def beside(group: Group, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
  cell = lambda text: " ".join(text.split())
  cut = lambda text: cell(
    text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} ... {text[-SHOWN // 2 :]}"
  )
  head = [
    "question",
    f"GRPO, {before['tokens']} tokens",
    f"{group.label}, {after['tokens']} tokens",
  ]
  return to_markdown(
    (head, [[cut(x) for x in (before["question"], before["text"], after["text"])]])
  )


def sections(folder: Path) -> Iterator[str]:
  """The measured part of the study's page."""
  choice = chosen_values(folder / "results")
  found = studies(read(folder / "results"))
  for study in found:
    which = f"the start {study.fingerprint}" if study.fingerprint else "the first start"
    yield f"### {study.model}, {which}"
    yield wrapped(
      f"Accuracy in per cent at mean tokens; {told(study, 'device')}, "
      f"commit {told(study, 'commit')}. "
      f"{caveat(study, choice)} Savings, points and AES are on GSM8K test, against GRPO."
    )
    yield pareto(study)
    yield table(study)
    if study is found[0]:  # the rules of all
      yield str(claims.__doc__).split("\n\n", 1)[1]
    yield claims_table(study)
    if pictures.by_budget(study):
      yield f"![Accuracy against tokens by the budget asked for](budgets{study.fingerprint}.png)"
      yield from curves(study)
    yield from samples(study)
  if choice:
    rows = [[method, f"{v:g}"] for method, v in choice.items() if v is not None]
    yield f"Chosen on validation problems:\n\n{to_markdown((['method', 'value'], rows))}"


def told(study: Study, key: str) -> str:
  """What the records say, each value once."""
  return " and ".join(dict.fromkeys(run[key] for group in study.groups for run in group.runs))


def pareto(study: Study, folder: str = "") -> str:
  """The picture of a start on a page."""
  return f"![Accuracy against tokens on GSM8K test and MATH-500]({folder}{_name(study)})"


def _name(study: Study) -> str:
  return f"pareto{study.fingerprint}.png"


def headline(folder: Path) -> str:
  """The README's figure, its table and its sentences."""
  study = studies(read(folder / "results"))[0]
  held = [g for g in study.groups if not g.collapsed and gsm8k(g) == "gsm8k"]
  score = lambda g: compared(study.grpo, g).score if study.grpo else 0.0
  best = sorted(held, key=score, reverse=True)[:README_ROWS]
  shown = sorted(best, key=lambda g: g.mean("gsm8k", "tokens").value)
  if study.grpo and study.grpo not in shown:
    shown.append(study.grpo)
  rows = [
    [g.label, str(len(g.runs)), cell(g, "gsm8k"), cell(g, "math500"), *against(study.grpo, g)[:2]]
    for g in shown
  ]
  head = ["method", "seeds", TASKS["gsm8k"], TASKS["math500"], "tokens saved", "points"]
  return "\n\n".join(
    [
      pareto(study, "experiments/studies/qwen_math/"),
      wrapped(
        f"{study.model}, trained on GSM8K from one start, for as many steps where the "
        "name does not say more: accuracy in per cent at mean tokens. "
        f"{caveat(study, chosen_values(folder / 'results'))} "
        "[The study](experiments/studies/qwen_math/README.md) has all methods, the claims of their "
        "papers, and how to run it again."
      ),
      to_markdown((head, rows)),
    ]
  )


def wrapped(text: str) -> str:
  return textwrap.fill(text, 110, break_long_words=False, break_on_hyphens=False)


def marked(text: str, block: str) -> str:
  """The page with the block between its markers."""
  begin, end = f"<!-- qwen_math: {COMMAND} -->", "<!-- end of qwen_math -->"
  pattern = f"{re.escape(begin)}.*?{re.escape(end)}"
  new, count = re.subn(pattern, lambda _: f"{begin}\n\n{block}\n\n{end}", text, flags=re.DOTALL)
  if count != 1:
    raise ValueError(f"the page has {count} places for {begin}.")
  return new


def pages(folder: Path = FOLDER, readme: Path = ROOT / "README.md") -> dict[Path, str]:
  """Both pages as the results say."""
  own = "\n\n".join(filter(None, (section.strip() for section in sections(folder))))
  page = folder / "README.md"
  return {
    page: marked(page.read_text(encoding="utf-8"), own),
    readme: marked(readme.read_text(encoding="utf-8"), headline(folder).strip()),
  }


def draw(folder: Path) -> None:
  for study in studies(read(folder / "results")):
    pictures.pareto(folder / _name(study), study)
    if pictures.by_budget(study):
      pictures.budgets(folder / f"budgets{study.fingerprint}.png", study)


def main() -> None:
  draw(FOLDER)
  for path, text in pages().items():
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
  main()

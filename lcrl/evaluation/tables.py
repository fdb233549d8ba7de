"""Runs side by side: one row of numbers a run, and these rows as Markdown, HTML or CSV."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lcrl.evaluation.intervals import Estimate
from lcrl.evaluation.pareto import accuracy_efficiency_score, on_front

__all__ = [
  "by_difficulty",
  "estimate",
  "further",
  "overview",
  "point_cells",
  "rows",
  "signed",
  "to_csv",
  "to_html",
  "to_markdown",
]

Runs = Mapping[str, Mapping[str, Any]]
ENDS = ("", "_low", "_high")
NOTHING = Estimate(math.nan, math.nan, math.nan)
Cells = tuple[list[str], list[list[str]]]  # header, rows


def estimate(point: Mapping[str, Any], key: str) -> Estimate:
  """One number of a summary with its interval; nan for what it lacks.

  >>> estimate(dict(accuracy=0.5, accuracy_ci=[0.4, None]), "accuracy")
  Estimate(value=0.5, low=0.4, high=nan)
  """
  return Estimate(*(math.nan if x is None else x for x in (point[key], *point[f"{key}_ci"])))


def _numbers(point: Mapping[str, Any] | None, prefix: str = "") -> dict[str, float]:
  """Accuracy and tokens with the ends of their intervals, as six flat columns."""
  return {
    f"{prefix}{key}{end}": value
    for key in ("accuracy", "tokens")
    for end, value in zip(ENDS, estimate(point, key) if point else NOTHING, strict=True)
  }


def _cells(row: Mapping[str, Any], prefix: str = "") -> list[str]:
  accuracy = _interval(Estimate(*(100 * row[f"{prefix}accuracy{end}"] for end in ENDS)))
  return [accuracy, _interval(Estimate(*(row[f"{prefix}tokens{end}"] for end in ENDS)))]


def point_cells(point: Mapping[str, Any] | None) -> list[str]:
  """Accuracy in percent and tokens of a point, each with its interval.

  >>> point_cells(dict(accuracy=0.5, accuracy_ci=[0.4, 0.6], tokens=20.0, tokens_ci=[18.0, 22.0]))
  ['50.0 [40.0, 60.0]', '20.0 [18.0, 22.0]']
  """
  return _cells(_numbers(point))


def _against(run: Mapping[str, Any], other: Mapping[str, Any] | None, label: str) -> dict[str, Any]:
  """Points of accuracy won, tokens as a change in percent, and AES, against another point."""
  found: dict[str, Any] = dict.fromkeys((f"{label}_points", f"{label}_tokens_percent"))
  found[f"{label}_aes"] = None
  numbers = [point and point[key] for point in (run, other) for key in ("accuracy", "tokens")]
  if other is not None and None not in numbers:
    found[f"{label}_points"] = 100 * (run["accuracy"] - other["accuracy"])
    base = other["accuracy"], other["tokens"]
    if base[1] > 0:
      found[f"{label}_tokens_percent"] = 100 * (run["tokens"] / base[1] - 1)
    if min(base) > 0:
      found[f"{label}_aes"] = accuracy_efficiency_score(run["accuracy"], run["tokens"], *base)
  return found


def rows(runs: Runs, *, baseline: str) -> list[dict[str, Any]]:
  """One flat row of numbers a run; None where there is nothing to say.

  Args:
    runs: name -> summary; without "start", it did not start anywhere.
    baseline: name of the run that others are compared with; it need not be there.

  >>> run = dict(accuracy=0.9, accuracy_ci=[0.8, 1.0], tokens=20.0, tokens_ci=[19.0, 21.0], seed=0)
  >>> run |= dict(wall_s=1.0, device="CPU", commit="abc")
  >>> found = rows({"laser": run, "correctness": run | dict(tokens=40.0)}, baseline="correctness")
  >>> found[0]["vs_baseline_tokens_percent"], found[0]["on_front"], found[1]["on_front"]
  (-50.0, True, False)
  """
  points = [[estimate(run, key).value for run in runs.values()] for key in ("accuracy", "tokens")]
  found = []
  for (name, run), front in zip(runs.items(), on_front(*points), strict=True):
    found.append(
      {
        "run": name,
        "seeds": len(run["seed"]) if isinstance(run["seed"], list) else 1,
        **_numbers(run),
        "on_front": bool(front) and not math.isnan(estimate(run, "accuracy").value),
        **_numbers(run.get("start"), "start_"),
        **_against(run, run.get("start"), "vs_start"),
        **_against(run, runs.get(baseline) if name != baseline else None, "vs_baseline"),
        "wall_s": run["wall_s"],
        "device": run["device"],
        "commit": run["commit"],
      }
    )
  return found


def _interval(e: Estimate) -> str:
  if math.isnan(e.value):
    return "-"
  return f"{e.value:.1f}" if math.isnan(e.low) else f"{e.value:.1f} [{e.low:.1f}, {e.high:.1f}]"


def _percent(point: Mapping[str, Any], key: str) -> str:
  return _interval(Estimate(*(100 * x for x in estimate(point, key))))


def signed(value: float | None, unit: str = "") -> str:
  """A change with its sign, a true minus; nothing for None.

  >>> signed(2.04), signed(-0.04), signed(None)
  ('+2.0', '+0.0', '')
  """
  return "" if value is None else f"{round(value, 1) + 0.0:+.1f}{unit}".replace("-", "\u2212")


def overview(found: Sequence[Mapping[str, Any]], *, baseline: str) -> Cells:
  """`rows` for reading: accuracy, tokens and the changes, below the start that all share.

  >>> run = dict(accuracy=0.9, accuracy_ci=[0.8, 1.0], tokens=20.0, tokens_ci=[19.0, 21.0], seed=0)
  >>> run |= dict(wall_s=1.0, device="CPU", commit="abc")
  >>> found = rows({"laser": run}, baseline="correctness")
  >>> print(to_markdown(overview(found, baseline="correctness")))
  | run | seeds | accuracy, % | tokens |
  |:--|--:|--:|--:|
  | laser * | 1 | 90.0 [80.0, 100.0] | 20.0 [19.0, 21.0] |
  """
  header, against = ["run", "seeds", "accuracy, %", "tokens"], list[str]()
  started = any(not math.isnan(row["start_accuracy"]) for row in found)
  if started:
    header += ["points from start", "tokens from start"]
    against += ["vs_start"]
  if any(row["vs_baseline_points"] is not None for row in found):
    header += [f"points from {baseline}", f"tokens from {baseline}"]
    against += ["vs_baseline"]
  body = []
  if started and len({(row["start_accuracy"], row["start_tokens"]) for row in found}) == 1:
    body.append(["start", "", *_cells(found[0], "start_"), *[""] * (len(header) - 4)])
  for row in found:
    cells = [row["run"] + (" *" if row["on_front"] else ""), str(row["seeds"]), *_cells(row)]
    for label in against:
      cells += [signed(row[f"{label}_points"]), signed(row[f"{label}_tokens_percent"], " %")]
    body.append(cells)
  return header, body


def further(runs: Runs) -> Cells | None:
  """Accuracy and tokens of each run on its further evaluation sets; None if no run has one.

  >>> further({"laser": {}}) is None
  True
  """
  found = {name: run.get("tasks") or {} for name, run in runs.items()}
  names = list(dict.fromkeys(task for tasks in found.values() for task in tasks))
  if not names:
    return None
  body = [
    [name, *(cell for task in names for cell in _cells(_numbers(tasks.get(task))))]
    for name, tasks in found.items()
  ]
  heads = [f"{task}: {unit}" for task in names for unit in ("accuracy, %", "tokens")]
  return ["further evaluation sets", *heads], body


def by_difficulty(runs: Runs) -> Cells:
  """Every run at every difficulty; columns that no run fills are left out."""
  extras = {
    "tokens_right": "tokens if right",
    "tokens_wrong": "tokens if wrong",
    "excess_tokens": "tokens above the shortest",
    "truncated": "met the cap, %",
  }
  points = [(n, d, p) for n, run in runs.items() for d, p in run["by_difficulty"].items()]
  extras = {k: v for k, v in extras.items() if any(p.get(k) is not None for *_, p in points)}
  scale = {"truncated": 100}
  body = []
  for name, level, point in points:
    cells = [name, level, str(point.get("n", ""))]
    cells += [_percent(point, "accuracy"), _interval(estimate(point, "tokens"))]
    for key in extras:
      value = point.get(key)
      cells.append("" if value is None else f"{scale.get(key, 1) * value:.1f}")
    body.append(cells)
  return ["run", "difficulty", "answers", "accuracy, %", "tokens", *extras.values()], body


def budgets(found: Mapping[str, Mapping[str, Any]]) -> Cells:
  """One model at several caps: cap -> `measure`, with any pass@k and its interval beside it."""
  first = next(iter(found.values()))
  ks = [key for key in first if key.startswith("pass@") and not key.endswith("_ci")]
  cut = {"thinking_cut": "thinking cut, %"} if "thinking_cut" in first else {}
  body = []
  for cap, point in found.items():
    rates = [_percent(point, key) for key in ("accuracy", *ks)]
    tokens = _interval(estimate(point, "tokens"))
    shares = [f"{100 * point[name]:.1f}" for name in ("truncated", *cut)]
    body.append([cap, str(point["n"]), rates[0], tokens, *shares, *rates[1:]])
  heads = ["budget", "answers", "accuracy, %", "tokens", "met the cap, %", *cut.values(), *ks]
  return heads, body


def to_markdown(cells: Cells) -> str:
  """A Markdown table; names lie left, numbers right.

  >>> print(to_markdown((["run", "tokens"], [["plain", "12.5"]])))
  | run | tokens |
  |:--|--:|
  | plain | 12.5 |
  """
  header, body = cells
  lines = [header, *body]
  text = ["| " + " | ".join(c.replace("|", "\\|") for c in line) + " |" for line in lines]
  return "\n".join([text[0], "|:--|" + "--:|" * (len(header) - 1), *text[1:]])


def to_html(cells: Cells) -> str:
  """An HTML table.

  >>> print(to_html((["run", "right"], [["laser", "99 %"]])))
  <table>
  <tr><th>run</th><th>right</th></tr>
  <tr><td>laser</td><td>99 %</td></tr>
  </table>
  """

  def line(tag: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(t)}</{tag}>" for t in texts) + "</tr>"

  header, body = cells
  return "\n".join(["<table>", line("th", header), *(line("td", c) for c in body), "</table>"])


def to_csv(found: Sequence[Mapping[str, Any]]) -> str:
  """`rows` as CSV, in full precision; empty where there is no number.

  >>> to_csv([dict(run="laser", accuracy=0.5), dict(run="naive", accuracy=None)]).splitlines()
  ['run,accuracy', 'laser,0.5', 'naive,']
  """
  text = io.StringIO()
  writer = csv.DictWriter(text, list(found[0]), lineterminator="\n")
  writer.writeheader()
  blank = [{k: "" if v is None or v != v else v for k, v in row.items()} for row in found]
  writer.writerows(blank)
  return text.getvalue()

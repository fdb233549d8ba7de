"""A study's numbers as tables and a picture: what each loss did to length, by kind of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.studies.preference.contrast import LOSSES
from lcrl.evaluation import tables
from lcrl.evaluation.plots import COLOURS, STYLE

# Of `contrast.Point`: heading, scale, digits, and whether the start has one.
COLUMNS: dict[str, tuple[str, float, int, bool]] = {
  "tokens": ("tokens", 1, 1, True),
  "accuracy": ("right, %", 100, 1, True),
  "kl": ("KL, nats an answer", 1, 2, False),
  "slope": ("reward, nats a token", 1, 3, False),
  "correlation": ("reward and length", 1, 2, False),
  "mean_correlation": ("mean log-prob and length", 1, 2, True),
  "agreement": ("held-out pairs, %", 100, 0, False),
}
NOTES = """- **reward, nats a token**: slope of log(policy / start), DPO's implicit reward, against
  length, over several answers of the start to each held-out prompt, within prompts.
- **reward and length**: the correlation of the same two.
- **mean log-prob and length**: the correlation of SimPO's reward with length.
- **held-out pairs**: share of pairs of unseen prompts whose chosen answer gained more log-prob."""


def _cell(seeds: np.ndarray, digits: int) -> str:
  low, mean, high = (f"{x:.{digits}f}" for x in (seeds.min(), seeds.mean(), seeds.max()))
  return mean if low == high else f"{mean} [{low}, {high}]"


def _row(name: str, points: Mapping[str, Any], at: int) -> list[str]:
  cells = [name]
  for column, (_, scale, digits, of_start) in COLUMNS.items():
    if column in points:
      cells.append(_cell(scale * np.array(points[column])[:, at], digits))
      if at == 0 and not of_start:
        cells[-1] = ""
  return cells


def _ordered(losses: Mapping[str, Any]) -> dict[str, Any]:
  """The losses as `contrast` lists them, then whatever else there is."""
  return {name: losses[name] for name in (*LOSSES, *losses) if name in losses}


def _table(kind: str, found: Mapping[str, Any]) -> str:
  losses = _ordered(found["losses"])
  first = next(iter(losses.values()))
  header = ["loss", *(heading for name, (heading, *_) in COLUMNS.items() if name in first)]
  body = [_row("start", first, 0), *(_row(loss, points, -1) for loss, points in losses.items())]
  facts = "{pairs:.0f} pairs a seed; chosen {chosen:.1f} tokens, rejected {rejected:.1f}."
  pairs = facts.format(**{name: np.mean(seeds) for name, seeds in found["pairs"].items()})
  return f"## {kind}\n\n{pairs}\n\n{tables.to_markdown((header, body))}\n"


def write(folder: Path, name: str, title: str, command: str, found: Mapping[str, Any]) -> None:
  """<name>.md and <name>.png into `folder`, from what <name>.json holds."""
  seeds, steps, size = len(found["seeds"]), found["steps"][-1], found["sizes"]["pairs"]
  origin = (
    f"{seeds} seed{'s'[: seeds > 1]}, {steps} updates of {size} pairs; "
    f"{found['device']}, commit {found['commit']}, {found['seconds']:.0f} s with compiling. "
    "Cells hold the mean over seeds and, in brackets, the lowest and the highest."
  )
  parts = [f"# {title}", f"    {command}", origin, NOTES]
  parts += [f"![tokens and accuracy against KL]({name}.png)"]
  parts += [_table(kind, one) for kind, one in found["kinds"].items()]
  (folder / f"{name}.md").write_text("\n\n".join(parts), encoding="utf-8")
  draw(folder / f"{name}.png", found)


def draw(path: Path, found: Mapping[str, Any]) -> None:
  """Tokens and accuracy against KL, a column a kind of pairs; seeds faint, their mean strong."""
  kinds = found["kinds"]
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(3.1 * len(kinds), 6.4))
    panels = figure.subplots(2, len(kinds), squeeze=False)
    for column, (kind, one) in zip(panels.T, kinds.items(), strict=True):
      column[0].set_title(kind.replace(", ", ",\n"))
      for colour, (loss, points) in zip(COLOURS, _ordered(one["losses"]).items(), strict=False):
        kl = np.maximum(np.array(points["kl"]), 0)
        for ax, key, scale in zip(column, ("tokens", "accuracy"), (1, 100), strict=True):
          values = scale * np.array(points.get(key, np.full_like(kl, np.nan)))
          if len(kl) > 1:
            ax.plot(kl.T, values.T, color=colour, lw=0.7, alpha=0.3)
          ax.plot(kl.mean(0), values.mean(0), "o-", ms=3.5, color=colour, label=loss)
      judged = "accuracy" in next(iter(one["losses"].values()))
      column[0].set_ylabel("tokens an answer")
      column[1].set_ylabel("right, %")
      column[1].set_visible(judged)
      column[int(judged)].set_xlabel("KL to the start, nats")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path)

"""twin.json as a table and a picture: what each loss did to length and accuracy, pair by pair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lcrl.evaluation import tables
from lcrl.evaluation.plots import COLOURS, STYLE

HEADER = [
  "loss",
  "tokens",
  "right, %",
  "KL, nats an answer",
  "reward, nats a token",
  "reward and length",
  "mean log-prob and length",
  "held-out pairs, %",
]
ABOUT = """# Preference losses on sums with long and short workings

{command}

{seeds} seeds, {device}, commit {commit}, {seconds:.0f} s, compiling included. A cell is the mean
over seeds after {steps} updates of {pairs} pairs each, with the lowest and the highest seed. The
start spends {tokens:.1f} tokens and is right in {right:.1f} %.

- **reward, nats a token**: slope of log(policy / start), the reward that DPO implies, against
  length, over four answers of the start to each held-out prompt, within prompts; 0 at the start.
- **reward and length**: the correlation of the same two, undefined at the start.
- **mean log-prob and length**: the correlation of SimPO's reward with length; {mean:.2f} at the
  start.
- **held-out pairs**: share of pairs of unseen prompts whose chosen answer gained more.

![tokens and accuracy against KL](twin.png)
"""


def _cell(seeds: np.ndarray, digits: int) -> str:
  low, mean, high = (f"{x + 0.0:.{digits}f}" for x in (seeds.min(), seeds.mean(), seeds.max()))
  return mean if low == high else f"{mean} [{low}, {high}]"


def _row(loss: str, points: Mapping[str, Any]) -> list[str]:
  columns = [
    ("tokens", 1, 1),
    ("accuracy", 100, 1),
    ("kl", 1, 2),
    ("slope", 1, 3),
    ("correlation", 1, 2),
    ("mean_correlation", 1, 2),
    ("agreement", 100, 0),
  ]
  return [loss] + [_cell(k * np.array(points[name])[:, -1], n) for name, k, n in columns]


def _table(kind: str, found: Mapping[str, Any]) -> str:
  pairs = {name: np.mean(seeds) for name, seeds in found["pairs"].items()}
  body = [_row(loss, points) for loss, points in found["losses"].items()]
  facts = "{pairs:.0f} pairs a seed; chosen {chosen:.1f} tokens, rejected {rejected:.1f}."
  return f"## {kind}\n\n{facts.format(**pairs)}\n\n{tables.to_markdown((HEADER, body))}\n"


def write(folder: Path, found: Mapping[str, Any]) -> None:
  """twin.md and twin.png into `folder`, from what twin.json holds."""
  first = next(iter(next(iter(found["kinds"].values()))["losses"].values()))
  begun = {name: float(np.mean(np.array(x)[:, 0])) for name, x in first.items()}
  about = ABOUT.format(
    command="    python -m experiments.studies.preference.twin --out=runs/twin",
    seeds=len(found["seeds"]),
    device=found["device"],
    commit=found["commit"],
    seconds=found["seconds"],
    steps=found["steps"][-1],
    pairs=found["sizes"]["pairs"],
    tokens=begun["tokens"],
    right=100 * begun["accuracy"],
    mean=begun["mean_correlation"],
  )
  sections = [_table(kind, one) for kind, one in found["kinds"].items()]
  (folder / "twin.md").write_text("\n".join([about, *sections]), encoding="utf-8")
  draw(folder / "twin.png", found)


def draw(path: Path, found: Mapping[str, Any]) -> None:
  """Tokens and accuracy against KL, a column a kind of pairs; seeds faint, their mean strong."""
  kinds = found["kinds"]
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(3.1 * len(kinds), 6.4))
    panels = figure.subplots(2, len(kinds), sharey="row", squeeze=False)
    for (upper, lower), (kind, one) in zip(panels.T, kinds.items(), strict=True):
      upper.set_title(kind.replace(", ", ",\n") if len(kind) > 20 else kind)
      lower.set_xlabel("KL to the start, nats")
      for colour, (loss, points) in zip(COLOURS, one["losses"].items(), strict=False):
        kl = np.maximum(np.array(points["kl"]), 0)
        for ax, key, scale in ((upper, "tokens", 1), (lower, "accuracy", 100)):
          values = scale * np.array(points[key])
          ax.plot(kl.T, values.T, color=colour, lw=0.7, alpha=0.3)
          ax.plot(kl.mean(0), values.mean(0), "o-", ms=3.5, color=colour, label=loss)
    panels[0, 0].set_ylabel("tokens an answer")
    panels[1, 0].set_ylabel("right, %")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False)
    figure.savefig(path)

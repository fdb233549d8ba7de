"""How long answers are, whatever was asked: YapBench, BenchOverflow and CASTILLO."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lcrl.evaluation.answers.rows import (
  Measured,
  Row,
  Rows,
  by_prompt,
  field,
  grouped,
  increasing,
  text,
)
from lcrl.evaluation.measures import cap_saturation as saturation
from lcrl.evaluation.measures import ecdf, length_summary, within_prompt_var
from lcrl.evaluation.plots import COLOURS, GREY, STYLE, save
from lcrl.evaluation.verbosity import yap_index
from lcrl.evaluation.verbosity import yap_score as excess

matplotlib.use("agg")


def yap_score(
  rows: Rows, *, sufficient: str = "sufficient", category: str | None = "category"
) -> Measured:
  """YapScore, characters beyond a minimal sufficient answer, and YapIndex over categories.

  Source: YapBench, arXiv:2601.00624. Several answers to a prompt count with their mean.

  Args:
    rows: answers.
    sufficient: field of the minimal answer, or of its number of characters.
    category: field of the prompt's category; None: all are of one.

  >>> row = dict(sufficient="Paris", category="facts")
  >>> yap_score([dict(prompt_id=0, sample=0, text="Paris, of course", row=row)]).numbers["YapIndex"]
  11.0
  """
  prompts = []
  for group in by_prompt(rows):
    least = field(group[0], sufficient)
    characters = len(least) if isinstance(least, str) else int(least)
    score = excess([len(row["text"]) for row in group], characters).mean()
    kind = "all" if category is None else text(group[0], category)
    prompts.append((kind, float(score)))
  index, medians = yap_index([score for _, score in prompts], [kind for kind, _ in prompts])
  by_category = {
    kind: {"median YapScore": medians[kind], "prompts": len(scores)}
    for kind, scores in grouped(prompts).items()
  }
  return Measured({"YapIndex": index, "prompts": len(prompts), "by category": by_category})


def cap_saturation(rows: Rows, *, at: tuple[int, ...] = ()) -> Measured:
  """Shares of answers of at least so many tokens (CSR@k) and the distribution of length (ECDF).

  Source: BenchOverflow, 2026.

  Args:
    rows: answers.
    at: thresholds in tokens, increasing; the cap is always one.

  >>> rows = [dict(prompt_id=0, sample=i, tokens=n, budget=50) for i, n in enumerate((10, 50))]
  >>> cap_saturation(rows).numbers
  {'CSR@50': 0.5, 'median tokens': 30.0, 'variance within a prompt': 800.0}
  """
  if at:
    increasing(at, "at")
  groups = by_prompt(rows)
  lengths, cap = np.array([row["tokens"] for row in rows]), _cap(rows)
  several = [[row["tokens"] for row in group] for group in groups if len(group) > 1]
  variances = [float(within_prompt_var(one)) for one in several]
  numbers: dict[str, Any] = {f"CSR@{k}": saturation(lengths, k) for k in dict.fromkeys((*at, cap))}
  numbers["median tokens"] = float(np.median(lengths))
  numbers["variance within a prompt"] = float(np.mean(variances)) if variances else None
  steps = np.unique(lengths)
  shares = ecdf(lengths, steps)
  details = [{"tokens": int(x), "share": float(f)} for x, f in zip(steps, shares, strict=True)]
  return Measured(numbers, details, partial(_draw_ecdf, x=steps, shares=shares, cap=cap))


def castillo(rows: Rows, *, ngram: int = 8, repeated: float | None = None) -> Measured:
  """The spread of length at each prompt, its shortest and longest text, and degenerate answers.

  An answer is degenerate if it reaches the cap, or repeats itself: its share of words' n-grams that
  occurred before is at least `repeated`. Source: CASTILLO, arXiv:2505.16881, which leaves the rule
  open. "tokens sanitised" is the mean over the other answers.

  Args:
    rows: answers.
    ngram: words of an n-gram.
    repeated: least share of repeated n-grams; None: only the cap counts.
  """
  details, flags = [], []
  for group in by_prompt(rows):
    ordered = sorted(group, key=lambda row: row["tokens"])
    degenerate = [_degenerate(row, ngram, repeated) for row in ordered]
    flags += [(bad, row["tokens"]) for bad, row in zip(degenerate, ordered, strict=True)]
    summary = length_summary([row["tokens"] for row in ordered], cap=_cap(group))
    details.append(
      {"prompt_id": group[0]["prompt_id"], "answers": len(group), **summary}
      | {"degenerate": sum(degenerate), "shortest": ordered[0]["text"]}
      | {"longest": ordered[-1]["text"]}
    )
  mean = lambda values: float(np.mean(values)) if len(values) else None
  numbers = {
    "tokens": mean([n for _, n in flags]),
    "tokens sanitised": mean([n for bad, n in flags if not bad]),
    "tokens degenerate": mean([n for bad, n in flags if bad]),
    "degenerate share": mean([bad for bad, _ in flags]),
    "mean cv within a prompt": mean([row["cv"] for row in details]),
  }
  return Measured(numbers, details)


def repeated_share(text: str, ngram: int) -> float:
  """Share of the n-grams of words that occurred before in the text; 0 for a short text.

  >>> repeated_share("go on go on go on", 2)  # 5 of them, 2 distinct
  0.6
  """
  if ngram < 1:
    raise ValueError(f"ngram must be at least 1, got {ngram}.")
  words = text.split()
  grams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
  return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _degenerate(row: Row, ngram: int, repeated: float | None) -> bool:
  loops = repeated is not None and repeated_share(row["text"], ngram) >= repeated
  return bool(row["truncated"] or loops)


def _cap(rows: Rows) -> int:
  """The cap of the answers, else their greatest length."""
  return int(max(row.get("budget", row["tokens"]) for row in rows))


def _draw_ecdf(path: Path, *, x: np.ndarray, shares: np.ndarray, cap: int) -> None:
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(6.4, 3.8))
    ax = figure.subplots()
    ends = np.concatenate([[0], x, [max(cap, x[-1])]])
    ax.step(ends, 100 * np.concatenate([[0], shares, [1]]), where="post", color=COLOURS[0])
    ax.axvline(cap, color=GREY, ls=(0, (4, 3)), lw=1.1)
    ax.annotate("cap ", (cap, 4), ha="right", color=GREY)
    ax.set(xlabel="tokens of an answer, at most", title="share of answers, %")
    ax.set(xlim=(0, None), ylim=(0, 100))
    save(figure, path)

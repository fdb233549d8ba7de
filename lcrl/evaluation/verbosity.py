"""Benchmarks of how long text is: for its question, for what was asked, for a rival's answer."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
  "length_instruction",
  "length_label",
  "length_score",
  "meets_length",
  "ruler_scores",
  "whitespace_words",
  "wildbench_reward",
  "wildbench_score",
  "wildbench_task_macro",
  "word_count",
  "written_length",
  "yap_index",
  "yap_score",
]


def word_count(text: str) -> int:
  r"""Words as Ruler counts them: matches of `\w+`, so that "It's" holds two.

  Source: Ruler, arXiv:2409.18943.

  >>> word_count("It's 3.5 o'clock.")
  6
  """
  return len(re.findall(r"\w+", text))


def whitespace_words(text: str) -> int:
  """Words as L-Eval counts them, between white space.

  >>> whitespace_words("It's 3.5 o'clock.")
  3
  """
  return len(text.split())


def written_length(text: str) -> int:
  """Length as LongBench-Write counts it: words, and characters of Chinese.

  Source: LongWriter, arXiv:2408.07055.

  >>> written_length("Two words"), written_length("\u4f60\u597d, Ann")
  (2, 3)
  """
  han = "\u3400-\u4dbf\u4e00-\u9fff"
  return len(re.findall(rf"[{han}]|[^\W{han}]+", text))


def length_instruction(prompt: str, reference: str) -> str:
  """The prompt with a request for as many words as the reference has.

  It takes most of the length confound out of ROUGE and F1. Source: L-Eval, arXiv:2307.11088.

  >>> length_instruction("Why?", "Since it is so.")
  'Why?\\nAnswer in 4 words.'
  """
  return f"{prompt}\nAnswer in {whitespace_words(reference)} words."


def yap_score(lengths: ArrayLike, sufficient: ArrayLike) -> np.ndarray:
  """Characters beyond a minimal sufficient answer, max(0, L - B). [N] -> [N].

  Source: YapBench, arXiv:2601.00624.

  >>> print(yap_score([31, 323], [33, 199]))
  [  0 124]
  """
  return np.maximum(np.asarray(lengths) - np.asarray(sufficient), 0)


def yap_index(scores: ArrayLike, category: Sequence[str]) -> tuple[float, dict[str, float]]:
  """Mean over categories of the median YapScore, and these medians.

  >>> print(yap_index([0, 10, 4], ["facts", "facts", "code"])[0])
  4.5
  """
  scores, names = np.asarray(scores, np.float64), np.asarray(category)
  medians = {str(name): float(np.median(scores[names == name])) for name in np.unique(names)}
  return float(np.mean(list(medians.values()))), medians


def length_score(required: ArrayLike, words: ArrayLike) -> np.ndarray:
  """How near a text comes to the length asked for: 100 at it, 0 from 4 times or to a third of it.

    100 * max(0, 1 - (l' / l - 1) / 3)  if l' > l, else  100 * max(0, 1 - (l / l' - 1) / 2)

  Source: LongBench-Write's S_l, LongWriter, arXiv:2408.07055. An empty text scores 0; the
  official code divides by zero there.

  >>> print(length_score(1000, [1000, 2000, 500, 0]))
  [100.          66.66666667  50.           0.        ]
  """
  required, words = np.broadcast_arrays(
    np.asarray(required, np.float64), np.asarray(words, np.float64)
  )
  if (required <= 0).any():
    raise ValueError(f"required must be positive, got {required.min()}.")
  safe = np.where(words > 0, words, required / 3)
  miss = np.where(words > required, (words / required - 1) / 3, (required / safe - 1) / 2)
  return 100 * np.maximum(0, 1 - miss)


class Target(NamedTuple):
  """A length that Ruler asks for, and its ranges of words, each open below and closed above."""

  level: int
  precise: tuple[float, float]
  flexible: tuple[float, float]
  training: tuple[float, float]  # of the responses that get this label


RULER = {
  "10": Target(0, (0, 20), (0, 20), (5, 15)),
  "30": Target(0, (20, 40), (20, 40), (25, 35)),
  "50": Target(0, (40, 60), (40, 60), (45, 55)),
  "80": Target(0, (70, 90), (60, 100), (75, 85)),
  "150": Target(1, (130, 170), (100, 200), (135, 155)),  # lopsided in the official code
  "300": Target(1, (280, 320), (200, 400), (295, 305)),
  "500": Target(1, (450, 550), (400, 600), (495, 505)),
  "700": Target(2, (630, 770), (600, 800), (695, 705)),
  ">800": Target(2, (800, math.inf), (800, math.inf), (800, math.inf)),
}


def length_label(words: int) -> str | None:
  """Ruler's meta length token for a training response; None where it has none and is dropped.

  >>> length_label(298), length_label(310)
  ('[MLT:300]', None)
  """
  for name, target in RULER.items():
    low, high = target.training
    if low < words <= high:
      return f"[MLT:{name}]"
  return None


def meets_length(target: str, words: int, *, flexible: bool = False) -> bool:
  """Whether a text of so many words meets a target of Ruler, precisely or flexibly.

  Source: Ruler, arXiv:2409.18943, whose ranges are open below and closed above.

  >>> meets_length("150", 175), meets_length("150", 175, flexible=True)
  (False, True)
  """
  if target not in RULER:
    raise ValueError(f"target must be one of {', '.join(RULER)}, got {target!r}.")
  low, high = RULER[target].flexible if flexible else RULER[target].precise
  return low < words <= high


def ruler_scores(targets: Sequence[str], words: Sequence[int]) -> dict:
  """Ruler's precise (pm) and flexible (fm) match in percent, pooled and by level of length.

  >>> ruler_scores(["10", "150"], [12, 175])["all"]
  {'pm': 50.0, 'fm': 100.0}
  """

  def percent(rows: list[int]) -> dict[str, float]:
    return {
      name: 100 * float(np.mean([meets_length(targets[i], words[i], flexible=f) for i in rows]))
      for name, f in (("pm", False), ("fm", True))
    }

  if len(targets) != len(words) or not targets:
    raise ValueError(f"targets and words must pair up, got {len(targets)} and {len(words)}.")
  levels: dict[int, list[int]] = {}
  for i, target in enumerate(targets):
    levels.setdefault(RULER[target].level, []).append(i)
  by_level = {level: percent(rows) for level, rows in sorted(levels.items())}
  return {"all": percent(list(range(len(words)))), "by_level": by_level}


def wildbench_reward(
  outcome: ArrayLike, lengths: ArrayLike, ref_lengths: ArrayLike, *, margin: float = 500
) -> np.ndarray:
  """WB-Reward of each item, in [-1, 1]: a slight win by much longer text is a tie. [N] -> [N].

    outcome / 2;  0 where outcome = +1 and length > ref_length + margin, and the mirror image

  Source: WildBench, arXiv:2406.04770. A negative `margin` switches the rule off, as there.

  Args:
    outcome: +2 much better to -2 much worse than the reference.
    lengths, ref_lengths: characters of the two outputs.
    margin: K, characters.

  >>> print(wildbench_reward([1, 1, 2], [1500, 1501, 9000], [1000, 1000, 1000]))
  [0.5 0.  1. ]
  """
  outcome, n, ref = (np.asarray(x) for x in (outcome, lengths, ref_lengths))
  longer = np.where(outcome > 0, n - ref, ref - n)  # by how much the winner is longer
  tie = (np.abs(outcome) == 1) & (longer > margin) & (margin >= 0)
  return np.where(tie, 0, outcome) / 2.0


WILDBENCH_TASKS = {
  "Creative Tasks": 0.5,
  "Planning & Reasoning": 1.25,
  "Math & Data Analysis": 1.0,
  "Information/Advice seeking": 0.75,
  "Coding & Debugging": 1.25,
}


def wildbench_task_macro(
  rewards: ArrayLike, tags: Sequence[Sequence[str]]
) -> tuple[float, dict[str, float]]:
  """WildBench's weighted mean over tasks, and each task's mean. An item may have several tags.

  The divisor is the sum of all five weights, also when a task is absent, as in the official code.

  >>> print(wildbench_task_macro([1.0, 0.0], [["Coding & Debugging"], ["Creative Tasks"]])[0])
  0.2631578947368421
  """
  rewards = np.asarray(rewards, np.float64)
  means = {}
  for task in WILDBENCH_TASKS:
    rows = [i for i, names in enumerate(tags) if task in names]
    if rows:
      means[task] = float(rewards[rows].mean())
  total = sum(WILDBENCH_TASKS[task] * mean for task, mean in means.items())
  return total / sum(WILDBENCH_TASKS.values()), means


def wildbench_score(scores: ArrayLike) -> float:
  """WB-Score: the judge's mean mark of 1 to 10, moved to -8 to 10 so that 5 is nothing.

  >>> wildbench_score([10, 3, 2, 9, 4, 8])
  2.0
  """
  return float(2 * (np.mean(np.asarray(scores, np.float64)) - 5))

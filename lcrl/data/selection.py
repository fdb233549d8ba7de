"""Selects samples of a prompt to imitate or to contrast, by verdict and length. Host side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["TopsSelection", "long2short_pairs", "tops_selection"]

Pairs = list[tuple[int, int]]  # chosen, rejected


class TopsSelection(NamedTuple):
  """What `tops_selection` takes from the answers to one prompt."""

  imitate: int | None  # the shortest right sample
  pairs: Pairs


def _sides(correct, lengths):
  correct, lengths = np.asarray(correct, bool), np.asarray(lengths)
  if correct.shape != lengths.shape or correct.ndim != 1:
    raise ValueError(
      f"correct and lengths must be equally long lists, got {correct.shape}, {lengths.shape}."
    )
  return np.flatnonzero(correct), np.flatnonzero(~correct), lengths


def tops_selection(correct: Sequence[bool], lengths: Sequence[int]) -> TopsSelection:
  """The shortest right sample, against the longest wrong one and a wrong one shorter than it.

  Source: TOPS, arXiv:2502.18080, from secondary notes; ties go to the first sample (ours).

  >>> tops_selection([1, 1, 0, 0], [500, 300, 900, 200])
  TopsSelection(imitate=1, pairs=[(1, 2), (1, 3)])
  """
  right, wrong, lengths = _sides(correct, lengths)
  if not right.size:
    return TopsSelection(None, [])
  chosen = int(right[np.argmin(lengths[right])])
  rejected = []
  if wrong.size:
    rejected.append(int(wrong[np.argmax(lengths[wrong])]))
    hasty = int(wrong[np.argmin(lengths[wrong])])
    if lengths[hasty] < lengths[chosen] and hasty not in rejected:
      rejected.append(hasty)
  return TopsSelection(chosen, [(chosen, other) for other in rejected])


def long2short_pairs(
  correct: Sequence[bool], lengths: Sequence[int], *, ratio: float = 1.5
) -> Pairs:
  """The shortest right sample against longer wrong ones and right ones `ratio` times as long.

  Source: long2short DPO of Kimi k1.5, arXiv:2501.12599.

  >>> long2short_pairs([1, 1, 1, 0], [100, 149, 150, 400])
  [(0, 2), (0, 3)]
  """
  right, wrong, lengths = _sides(correct, lengths)
  if not right.size:
    return []
  chosen = int(right[np.argmin(lengths[right])])
  worse = np.zeros(len(lengths), bool)
  worse[wrong] = lengths[wrong] > lengths[chosen]
  worse[right] = lengths[right] >= ratio * lengths[chosen]
  worse[chosen] = False
  return [(chosen, int(other)) for other in np.flatnonzero(worse)]

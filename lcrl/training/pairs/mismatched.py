"""A third side for KTO: the prompt with the answer to another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lcrl.data.sources import Encoded


def mismatched(encoded: Sequence[Encoded], window: int) -> list[Encoded]:
  """Every pair with a chosen answer to another prompt as side 2, cut at `window` tokens of the row.

  The k-th pair of a prompt gets the answer of the k-th pair behind all pairs of that prompt, in the
  order in which prompts come; so where each prompt has one pair, that of the next. KTO's baseline
  asks how likely such answers have become (arXiv:2402.01306).

  Raises:
    ValueError: all pairs are of one prompt.
  """
  groups: dict[bytes, list[Encoded]] = {}
  for one in encoded:
    groups.setdefault(np.asarray(one.prompt, np.int64).tobytes(), []).append(one)
  if len(groups) < 2:
    raise ValueError(
      f"mismatched answers need pairs of at least two prompts; all {len(encoded)} are of one."
    )
  order = [one for group in groups.values() for one in group]
  other, start = dict[int, Encoded](), 0
  for group in groups.values():
    start, rest = start + len(group), len(order) - len(group)
    for k, one in enumerate(group):
      other[id(one)] = order[(start + k % rest) % len(order)]
  return [
    dataclasses.replace(
      one,
      sides=(*one.sides, other[id(one)].sides[0][: window - len(one.prompt)]),
      scores=(*one.scores, float("nan")) if one.scores else (),
    )
    for one in encoded
  ]

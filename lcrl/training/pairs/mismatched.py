"""A third side for KTO: the prompt with the answer to another prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from lcrl.data.sources import Encoded


def mismatched(encoded: Sequence[Encoded], window: int) -> list[Encoded]:
  """Every pair with a chosen answer to another prompt as side 2, cut at `window` tokens of the row.

  In the order of prompts, the k-th pair of a prompt gets the answer of the k-th pair after all
  pairs of that prompt. If each prompt has one pair, that is the answer to the next prompt.
  KTO's baseline measures how likely such answers have become (arXiv:2402.01306).

  Raises:
    ValueError: all pairs have the same prompt.
  """
  groups: dict[bytes, list[Encoded]] = {}
  for pair in encoded:
    groups.setdefault(np.asarray(pair.prompt, np.int64).tobytes(), []).append(pair)
  if len(groups) < 2:
    raise ValueError(
      f"mismatched answers need pairs of at least two prompts; all {len(encoded)} are of one."
    )
  order = [pair for group in groups.values() for pair in group]
  other, start = dict[int, Encoded](), 0
  for group in groups.values():
    start, rest = start + len(group), len(order) - len(group)
    for k, pair in enumerate(group):
      other[id(pair)] = order[(start + k % rest) % len(order)]
  return [
    dataclasses.replace(
      pair,
      sides=(*pair.sides, other[id(pair)].sides[0][: window - len(pair.prompt)]),
      scores=(*pair.scores, float("nan")) if pair.scores else (),
    )
    for pair in encoded
  ]

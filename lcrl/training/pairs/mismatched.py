"""A third side for KTO: the prompt with the answer to another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from lcrl.data.sources import Encoded


def mismatched(encoded: Sequence[Encoded], window: int) -> list[Encoded]:
  """Every pair with the next pair's chosen answer as side 2, cut at `window` tokens of the row.

  KTO's baseline asks how likely such answers have become (arXiv:2402.01306).
  """
  if len(encoded) < 2:
    raise ValueError("mismatched answers need at least two pairs.")
  others = [*encoded[1:], encoded[0]]
  return [
    dataclasses.replace(
      one,
      sides=(*one.sides, other.sides[0][: window - len(one.prompt)]),
      scores=(*one.scores, float("nan")) if one.scores else (),
    )
    for one, other in zip(encoded, others, strict=True)
  ]

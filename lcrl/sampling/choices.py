"""What `sampling.control` of a config may name; `chained` takes several."""

from __future__ import annotations

from collections.abc import Sequence

from lcrl.sampling.controls import Control, chain, min_p, top_k, top_p
from lcrl.sampling.mirostat import mirostat_v1, mirostat_v2
from lcrl.sampling.steering import (
  budget_forcing,
  end_of_thinking_bias,
  end_of_thinking_scale,
  eos_ramp,
  repeat_penalty,
)

__all__ = [
  "budget_forcing",
  "chained",
  "end_of_thinking_bias",
  "end_of_thinking_scale",
  "eos_ramp",
  "min_p",
  "mirostat_v1",
  "mirostat_v2",
  "repeat_penalty",
  "top_k",
  "top_p",
]


def chained(*, controls: Sequence[Control]) -> Control:
  """`chain` of the controls, from left to right: what forces tokens stands first."""
  return chain(*controls)

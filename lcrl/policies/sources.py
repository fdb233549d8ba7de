"""Where a run's policy comes from: what `policy.fn` of a config may name."""

from __future__ import annotations

import jax

from lcrl.named import takes
from lcrl.policies.config import Config, tiny
from lcrl.policies.hf import Source, pretrained
from lcrl.policies.transformer import make

__all__ = ["fresh", "pretrained"]


@takes(Config)
def fresh(*, vocab_size: int, **sizes) -> Source:
  """A small decoder with random weights; the sizes are fields of `Config`."""
  policy = make(tiny(vocab_size, **sizes))
  return Source(
    policy, lambda key, shardings=None: jax.jit(policy.init, out_shardings=shardings)(key)
  )

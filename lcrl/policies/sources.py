"""Where a run's policy comes from: what `policy.fn` of a config may name."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from lcrl.policies.config import Config, tiny
from lcrl.policies.families import FAMILIES
from lcrl.policies.hf import Source, init_in, pretrained
from lcrl.policies.transformer import make
from lcrl.registry import takes

__all__ = ["between", "fresh", "pretrained"]


@takes(Config)
def fresh(*, vocab_size: int, param_dtype: str | None = None, **sizes) -> Source:
  """A small decoder with random weights; the sizes are fields of `Config`.

  Args:
    vocab_size: entries of the vocabulary.
    param_dtype: of the parameters as they are stored; None: float32, or wider with `dtype`.
    **sizes: other fields of `Config`.

  Raises:
    ValueError: the family has no name in `families.FAMILIES`.
  """
  policy = make(tiny(vocab_size, **sizes))
  if (family := policy.config.family) not in FAMILIES:
    raise ValueError(f"family={family!r} is not one of {', '.join(FAMILIES)}.")
  init = init_in(policy, param_dtype)
  params = lambda key, shardings=None: jax.jit(init, out_shardings=shardings)(key)
  return Source(policy, params, init)


def between(
  *,
  path: str,
  toward: str,
  strength: float = 0.5,
  dtype: str = "float32",
  param_dtype: str = "float32",
  remat: str = "auto",
  unroll: bool | Literal["auto"] = "auto",
  attention: str = "auto",
) -> Source:
  """A model on the line through two models of one kind, both in memory: `path` + strength *
  (`toward` - `path`), summed in float32. Below 0 and above 1 it lies past them (CoT-Valve,
  arXiv:2502.09601).

  Args:
    path: the model at strength 0, as in `pretrained`; its tokenizer is taken.
    toward: the model at strength 1.
    strength: how far from the first to the second.
    dtype, param_dtype, remat, unroll, attention: as in `pretrained`.
  """
  if not math.isfinite(strength):
    raise ValueError(f"strength must be a finite number, got {strength}.")
  how: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "remat": remat}
  how |= {"unroll": unroll, "attention": attention}
  first, second = (pretrained(end, **how) for end in (path, toward))
  for field in Config.__dataclass_fields__:
    ours, theirs = (getattr(end.policy.config, field) for end in (first, second))
    if ours != theirs:
      raise ValueError(f"{toward}: {field} is {theirs}, in {path} {ours}.")

  def mix(x, y):
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return (x.astype(wide) + strength * (y.astype(wide) - x.astype(wide))).astype(x.dtype)

  def params(key=None, shardings=None):
    ends = [end.params(key, shardings) for end in (first, second)]
    return jax.jit(lambda *both: jax.tree.map(mix, *both), donate_argnums=0)(*ends)

  return Source(first.policy, params, first.init)

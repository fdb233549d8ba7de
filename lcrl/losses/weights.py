"""Slot 5b: how much each token counts. The loss is the sum of weights times token losses.

`weigh(mask, keep)` is taken once a step from the whole batch, so that cutting the batch into pieces
changes nothing. This choice decides how response length enters the gradient: a token's weight may
depend on its own response's length (`sequence_mean`), on everybody's (`token_mean`) or on nobody's
(`fixed_length`). Rows that do not train have weight 0.

Inside `jax.shard_map`, where mask and keep are one device's share, give `axis_name`, the mesh axes
that cut the batch: tokens and rows then are counted over all devices, and the sum of the devices'
losses is the loss of the batch. Without it each device would weigh as if it had all of it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from lcrl.checks import per_row, positive
from lcrl.masked import AxisName, as_float, total
from lcrl.sharding import running_sum

__all__ = [
  "control_token",
  "fixed_length",
  "fixed_total",
  "sequence_mean",
  "sequence_sum",
  "token_mean",
]


def __dir__() -> list[str]:
  return __all__


def _tokens(mask: jax.Array, keep: jax.Array) -> jax.Array:
  per_row(dict(mask=mask), keep=keep)
  return as_float(mask & keep[..., None])


def _share(tokens: jax.Array, count) -> jax.Array:
  return tokens / jnp.maximum(count, 1)


def token_mean(mask: jax.Array, keep: jax.Array, *, axis_name: AxisName = None) -> jax.Array:
  """Every token counts the same: 1 / number of tokens. Long responses outweigh short ones.

  Source: DAPO, Yu et al. 2025, arXiv:2503.14476.

  Args:
    mask: [..., T] bool, sampled tokens.
    keep: [...] bool, rows that train.
  Returns: [..., T] float weights, summing to 1.

  >>> print(token_mean(jnp.array([[True, True], [True, False]]), jnp.array([True, True])))
  [[0.33333334 0.33333334]
   [0.33333334 0.        ]]
  """
  tokens = _tokens(mask, keep)
  return _share(tokens, total(jnp.sum(tokens), axis_name))


def sequence_mean(
  mask: jax.Array, keep: jax.Array, *, count_empty: bool = False, axis_name: AxisName = None
) -> jax.Array:
  """Every response counts the same and its tokens share the count: 1 / (rows * length).

  A token of a long response weighs less: right answers are drawn to be short, wrong ones long
  (arXiv:2503.20783). Source: GRPO, arXiv:2402.03300, as in verl; `count_empty` counts kept rows
  without a token among the rows, as TRL does.

  Args:
    mask: [..., T] bool, sampled tokens.
    keep: [...] bool, rows that train.
  Returns: [..., T] float weights, summing to 1 over rows that hold a token.

  >>> print(sequence_mean(jnp.array([[True, True], [True, False]]), jnp.array([True, True])))
  [[0.25 0.25]
   [0.5  0.  ]]
  """
  tokens = _tokens(mask, keep)
  lengths = jnp.sum(tokens, -1, keepdims=True)
  rows = jnp.sum(keep if count_empty else lengths > 0)
  return _share(_share(tokens, lengths), total(rows, axis_name))


def sequence_sum(mask: jax.Array, keep: jax.Array, *, axis_name: AxisName = None) -> jax.Array:
  """Every token weighs 1 / rows that hold a token: the mean over responses of token sums.

  With a sequence-level surrogate this is LUSPO (arXiv:2602.05261). [..., T], [...] -> [..., T].

  >>> print(sequence_sum(jnp.array([[True, True], [True, False]]), jnp.array([True, True])))
  [[0.5 0.5]
   [0.5 0. ]]
  """
  tokens = _tokens(mask, keep)
  return _share(tokens, total(jnp.sum(jnp.any(tokens > 0, -1)), axis_name))


def control_token(
  mask: jax.Array,
  keep: jax.Array,
  *,
  alpha: float = 1e-3,
  per_sequence: bool = True,
  axis_name: AxisName = None,
) -> jax.Array:
  """A response's first token, which chooses the mode, weighs alpha / rows, whatever the length.

  The others as by `sequence_mean`, or as by `token_mean` (`per_sequence=False`). A weight that the
  whole response shared would vanish beside thousands of tokens of thinking. Source: DeGRPO of
  Thinkless, arXiv:2505.13379; its code has the mean over tokens, and weighs KL by tokens alike.

  Args:
    mask: [..., T] bool, sampled tokens.
    keep: [...] bool, rows that train.
  Returns: [..., T] float weights, summing to 1 + alpha over rows of two tokens or more.

  >>> mask = jnp.array([[True, True, True], [True, True, False]])
  >>> print(control_token(mask, jnp.array([True, True]), alpha=0.1))
  [[0.05 0.25 0.25]
   [0.05 0.5  0.  ]]
  """
  tokens = _tokens(mask, keep) > 0
  first = tokens & (running_sum(tokens) == 1)
  rest = sequence_mean if per_sequence else token_mean
  control = sequence_sum(first, keep, axis_name=axis_name)
  return alpha * control + rest(tokens & ~first, keep, axis_name=axis_name)


def fixed_length(
  mask: jax.Array, keep: jax.Array, *, length: float, axis_name: AxisName = None
) -> jax.Array:
  """Every token weighs 1 / (kept rows * length), whatever was sampled. [..., T], [...] -> [..., T].

  Source: Dr. GRPO, Liu et al. 2025, arXiv:2503.20783; `length` is the generation cap.

  >>> print(fixed_length(jnp.array([[True, True], [True, False]]), jnp.ones(2, bool), length=4))
  [[0.125 0.125]
   [0.125 0.   ]]
  """
  positive(length=length)
  return _share(_tokens(mask, keep) / length, total(jnp.sum(keep), axis_name))


def fixed_total(mask: jax.Array, keep: jax.Array, *, total: float) -> jax.Array:
  """Every token weighs 1 / total, however many responses there are. [..., T], [...] -> [..., T].

  The loss then grows with the number of responses; `fixed_length` does not. `total` is the whole
  batch's, on every device of a `jax.shard_map` too.

  >>> print(fixed_total(jnp.array([[True, True, False]]), jnp.array([True]), total=8))
  [[0.125 0.125 0.   ]]
  """
  positive(total=total)
  return _tokens(mask, keep) / total

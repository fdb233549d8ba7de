"""Optimizers by name: a chain of clipping, the rule and a learning-rate schedule."""

from __future__ import annotations

import optax

__all__ = ["adamw", "sgd"]


def adamw(
  *,
  learning_rate: float,
  clip_norm: float = 1.0,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  warmup: int = 0,
  decay: int = 0,
) -> optax.GradientTransformation:
  """AdamW after clipping the global gradient norm (arXiv:1711.05101); see `schedule`."""
  rate = schedule(learning_rate, warmup=warmup, decay=decay)
  return optax.chain(
    optax.clip_by_global_norm(clip_norm),
    optax.adamw(rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay),
  )


def sgd(
  *,
  learning_rate: float,
  clip_norm: float = 1.0,
  momentum: float = 0.0,
  warmup: int = 0,
  decay: int = 0,
) -> optax.GradientTransformation:
  """Gradient descent after clipping the global gradient norm; see `schedule`."""
  rate = schedule(learning_rate, warmup=warmup, decay=decay)
  return optax.chain(optax.clip_by_global_norm(clip_norm), optax.sgd(rate, momentum or None))


def schedule(learning_rate: float, *, warmup: int = 0, decay: int = 0) -> optax.Schedule:
  """Linear from 0 over `warmup` steps, then constant, or a cosine to 0 that ends at step `decay`.

  >>> print([round(float(schedule(1.0, warmup=2, decay=6)(t)), 3) for t in (0, 1, 2, 4, 6)])
  [0.0, 0.5, 1.0, 0.5, 0.0]
  """
  if decay and decay <= warmup:
    raise ValueError(f"decay must come after warmup, got decay={decay} and warmup={warmup}.")
  if decay:
    return optax.warmup_cosine_decay_schedule(
      0.0 if warmup else learning_rate, learning_rate, warmup, decay
    )
  return optax.join_schedules(
    [
      optax.linear_schedule(0.0, learning_rate, max(warmup, 1)),
      optax.constant_schedule(learning_rate),
    ],
    [warmup],
  )

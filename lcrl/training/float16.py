"""Gradients of a policy that computes in float16, as on GPUs older than bfloat16 (T4, V100).

A token's share of the loss is one over the tokens of a batch. Behind it, float16 would round most
gradients of activations to zero: its smallest number is 6e-8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

PyTree = Any
HEADROOM = 8  # bits


def scaled(score: Callable[..., PyTree]) -> Callable[..., PyTree]:
  """`score(params, rows, **static)` with a scaled backward pass, and the same gradient.

  Cotangents of the scores are multiplied by the power of two that makes the largest about 1/256, so
  that sums over 10^5 tokens stay below the largest number, 65,504. Gradients of the parameters are
  divided by it, which is exact in float32. Nothing flows to `rows`.
  """

  def run(params: PyTree, rows: Any, **static) -> PyTree:
    forward = lambda params, rows: score(params, rows, **static)
    f = jax.custom_vjp(forward)
    f.defvjp(lambda params, rows: jax.vjp(lambda p: forward(p, rows), params), pull_back)
    return f(params, rows)

  def pull_back(pull, cotangents):
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(cotangents)]))
    _, exponent = jnp.frexp(jnp.where(jnp.isfinite(largest), largest, 1.0))
    times = lambda tree, power: jax.tree.map(lambda x: jnp.ldexp(x, power), tree)
    (grads,) = pull(times(cotangents, -HEADROOM - exponent))
    return times(grads, HEADROOM + exponent), None

  return run

"""Rows that adapters act on with a strength of their own: CoT-Valve's precise tuning.

    loss of row i at base + strength_i * adapters

Source: CoT-Valve, arXiv:2502.09601, from secondary notes: a chain of m tokens has the strength
1 - (m - shortest) / (longest - shortest) among the chains of its question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from lcrl.policies import Policy

PyTree = Any
KEY = "strengths"  # of the params that `with_strengths` reads: [...] numbers for rows [..., T]


def with_strengths(policy: Policy) -> Policy:
  """The policy whose hidden states are those at params["strengths"], for rows that are not packed.

  The kernels are shared by all rows; only the small factors b of the adapters have one value a row.
  """

  def hidden(params: PyTree, tokens: jax.Array) -> jax.Array:
    rest = {name: x for name, x in params.items() if name != KEY}

    def one(strength: jax.Array, row: jax.Array) -> jax.Array:
      scaled = lambda x: x | {"b": strength * x["b"]} if "b" in x else x
      layers = {name: scaled(x) for name, x in rest["layers"].items()}
      return policy.hidden(rest | {"layers": layers}, row)

    rows = tokens.reshape(-1, tokens.shape[-1])
    found = jax.vmap(one)(jax.lax.stop_gradient(params[KEY]).reshape(-1), rows)
    return found.reshape(*tokens.shape, -1)

  return dataclasses.replace(policy, hidden=hidden)


def make_scorer(make: Callable[..., Callable], policy: Policy, **options: Any) -> Callable:
  """The scorer of `make` (`lcrl.training.scorer.make_scorer`), each row at the strength that is its
  score in the data. Params without adapters are refused."""
  score = make(with_strengths(policy), **options)

  def score_at_strengths(params: PyTree, pairs: Any):
    if not any("b" in x for x in params["layers"].values()):
      raise ValueError("train.strengths scales adapters, and these params have none.")
    return score(params | {KEY: pairs.scores}, pairs)

  return score_at_strengths

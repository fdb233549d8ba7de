"""ThinkEdit: takes the direction of short thinking out of the attention heads that write it.

Source: arXiv:2503.22048 and its code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lcrl.merging.arrays import Arrays, check_number, wide

__all__ = ["head_scores", "thinking_direction", "top_heads", "without_direction"]


def thinking_direction(long: Arrays, short: Arrays) -> np.ndarray:
  """From short thinking to long: mean over long examples less mean over short ones. -> [D].

  An example is the mean over its tokens, so that long ones do not count more.

  Args:
    long: per example [T, D], the residual stream after a layer's attention at T thinking tokens.
    short: the same of examples with short thinking.

  >>> print(thinking_direction([np.array([[1.0, 2.0], [3.0, 2.0]])], [np.array([[1.0, 0.0]])]))
  [1. 2.]
  """
  for name, examples in (("long", long), ("short", short)):
    if not len(examples) or any(not len(x) for x in examples):
      raise ValueError(f"{name} must hold examples with at least one token each.")
  means = [np.stack([wide(x).mean(0) for x in examples]).mean(0) for examples in (long, short)]
  return means[0] - means[1]


def head_scores(contributions: Any, direction: Any) -> np.ndarray:
  """How far each head writes towards short thinking: mean_n(c_nh . -d / ||d||). -> [H].

  Args:
    contributions: [N, H, D], per short example what a head adds to the residual stream, mean over
      thinking tokens.
    direction: [D], `thinking_direction` of the layer.

  >>> print(head_scores(np.array([[[0.0, -2.0], [3.0, 1.0]]]), np.array([0.0, 5.0])))
  [ 2. -1.]
  """
  return wide(contributions).mean(0) @ _short(direction)


def top_heads(scores: Any, *, count: int) -> list[tuple[int, int]]:
  """(layer, head) of the `count` largest scores [layers, H], from the largest down.

  The paper edits 20, 40, 80 and 160 heads of models with 1.5, 8, 14 and 32 B parameters.

  >>> top_heads(np.array([[0.1, 0.9], [0.5, 0.2]]), count=2)
  [(0, 1), (1, 0)]
  """
  scores = np.asarray(scores)
  if not 1 <= count <= scores.size:
    raise ValueError(f"count must be between 1 and the {scores.size} heads, got {count}.")
  order = np.argsort(-scores, axis=None, kind="stable")[:count]
  layers, heads = np.unravel_index(order, scores.shape)
  return list(zip(layers.tolist(), heads.tolist(), strict=True))


def without_direction(
  out: Any, direction: Any, *, heads: Sequence[int], head_dim: int, strength: float = 1.0
) -> np.ndarray:
  """An attention's output matrix whose `heads` no longer write along the direction.

    W_h - strength * v v^T W_h,  v = d / ||d||

  At strength 1 nothing is left along it, of either sign. Other heads stay as they are.

  Args:
    out: [D, heads * head_dim], as in a Hugging Face folder.
    direction: [D].
    heads: which are edited.
    head_dim: columns of a head.
    strength: of the edit.

  >>> print(without_direction(np.ones((2, 2)), np.array([1.0, 0.0]), heads=[1], head_dim=1))
  [[1. 0.]
   [1. 1.]]
  """
  check_number("strength", strength)
  edited = wide(out).copy()
  there = edited.shape[1] // head_dim
  if wrong := [head for head in heads if not 0 <= head < there]:
    raise ValueError(f"heads must be below {there}, got {wrong[0]}.")
  along = _short(direction).astype(edited.dtype)
  if along.shape != edited.shape[:1]:
    raise ValueError(f"direction must be {edited.shape[:1]}, got {along.shape}.")
  for head in set(heads):
    part = edited[:, head * head_dim : (head + 1) * head_dim]
    part -= strength * np.outer(along, along @ part)
  return edited


def _short(direction: Any) -> np.ndarray:
  direction = wide(direction)
  norm = np.linalg.norm(direction)
  if not (norm > 0 and np.isfinite(norm)):
    raise ValueError(f"direction must be finite and not 0, its norm is {norm}.")
  return -direction / norm

"""Sens-Merging: each layer's changes, weighted by how much the models' losses depend on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from lcrl.merging.arrays import Arrays, check_number, stacked, weighted_sum, wide

__all__ = ["group_of", "groups", "sens_merge", "sensitivity_weights"]

OTHERS = ("model.embed_tokens", "model.norm", "lm_head")  # groups of tensors behind the layers


def groups(layers: int) -> list[str]:
  """The names of the groups of tensors that share a weight: each layer, and what is outside.

  >>> groups(1)
  ['model.layers.0', 'model.embed_tokens', 'model.norm', 'lm_head']
  """
  return [*(f"model.layers.{i}" for i in range(layers)), *OTHERS]


def group_of(name: str, layers: int) -> int:
  """The number of the group that a tensor belongs to.

  >>> group_of("model.layers.1.mlp.up_proj.weight", 2), group_of("model.norm.weight", 2)
  (1, 3)
  """
  for number, group in enumerate(groups(layers)):
    if name.startswith(f"{group}."):
      return number
  raise ValueError(f"tensor {name} is in none of the groups {', '.join(groups(layers))}.")


def sensitivity_weights(
  sensitivities: Any, distances: Any, *, temperature: float = 1.0
) -> np.ndarray:
  """The share of each model in each group of tensors; shares of a group sum to 1.

    softmax over models of tau_k alpha_kg / temperature
    alpha_k = S_k / |S_k|;   tau_k = sum_j d_kj / sum of all d

  Source: Sens-Merging, arXiv:2502.12420, from a third party's code: a model whose logits are
  further from those of the others on their data counts more. Without any distance all tau are
  equal, and without any sensitivity all groups of a model.

  Args:
    sensitivities: [models, groups], of each model on its own data, at least 0.
    distances: [models, models], of the logits of model k to those of model j on the data of j, at
      least 0; the diagonal counts for nothing.
    temperature: above 0; the higher, the more equal are the models.
  Returns: [models, groups].

  >>> sensitivities, distances = [[3.0, 4.0], [4.0, 3.0]], [[0.0, 1.0], [1.0, 0.0]]
  >>> print(sensitivity_weights(sensitivities, distances, temperature=0.1).round(3))
  [[0.269 0.731]
   [0.731 0.269]]
  """
  s, d = np.asarray(sensitivities, float), np.asarray(distances, float)
  count = len(s)
  if s.ndim != 2 or d.shape != (count, count):
    raise ValueError(
      f"sensitivities must be [models, groups] and distances [models, models], got {s.shape} and "
      f"{d.shape}."
    )
  for name, x in (("sensitivities", s), ("distances", d)):
    if not np.isfinite(x).all() or (x < 0).any():
      raise ValueError(f"{name} must be finite and at least 0.")
  if not 0 < temperature < np.inf:
    raise ValueError(f"temperature must be a finite number above 0, got {temperature}.")
  norms = np.linalg.norm(s, axis=1, keepdims=True)
  alpha = np.where(norms > 0, s / np.where(norms > 0, norms, 1), 1 / s.shape[1])
  total = d.sum(1) - d.diagonal()
  tau = total / total.sum() if total.sum() > 0 else np.full(count, 1 / count)
  scores = tau[:, None] * alpha / temperature
  shares = np.exp(scores - scores.max(0))
  return shares / shares.sum(0)


def sens_merge(base: Any, models: Arrays, shares: Any, *, scale: float = 1.0) -> np.ndarray:
  """base + scale * K sum_k share_k (theta_k - base): task arithmetic where all shares are equal.

  Source: as `sensitivity_weights`. Arrays [...] -> [...].

  Args:
    base: what all models started from.
    models: K of them.
    shares: [K], of the tensor's group (`sensitivity_weights`).
    scale: of the whole change.

  >>> print(sens_merge(np.zeros(2), [np.ones(2), np.array([0.0, 4.0])], np.array([0.25, 0.75])))
  [0.5 6.5]
  """
  check_number("scale", scale)
  changes, given = stacked(models, base), wide(shares)
  if given.shape != (len(changes),):
    raise ValueError(f"shares must be one for each of {len(changes)} models, got {given.shape}.")
  return wide(base) + scale * len(changes) * weighted_sum(changes, given)

"""Builds the loss of a run on pairs from the sections loss and weights, and checks its needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lcrl.losses import reward_model, weights
from lcrl.losses.preference import stages
from lcrl.registry import build, resolve
from lcrl.training.pairs import imitation
from lcrl.types import Stage

LOSSES = {"preference": stages, "sft": imitation, "reward_model": reward_model}
TRAINER = {
  "ref",
  "weights",
  "mismatched",
  "embeddings",
}  # needs of a loss that the trainer supplies


def named_loss(run: str, built: Mapping[str, Any]) -> tuple[Stage, Callable]:
  """The stage that the section loss names, and the weighting of its likelihood term.

  Raises:
    ValueError: the loss needs a section that is missing, or nothing reads a section.
  """
  stage = build(LOSSES[run], built["loss"], field="loss", gives=Stage)
  name = built["loss"]["fn"]
  if not stage.coupled and jax.tree.leaves(stage.init()):
    raise ValueError(f"loss.fn={name!r} has a state, so it must be coupled.")
  for need, section, why in (
    ("weights", "weights", "a likelihood term"),
    ("ref", "reference", "a reference"),
  ):
    if need in stage.needs and section not in built:
      raise ValueError(f"loss.fn={name!r} has {why}: the config needs a section {section}.")
    if need not in stage.needs and section in built:
      raise ValueError(f"nothing reads the section {section}: loss.fn={name!r} has not {why}.")
  if "weights" not in stage.needs:
    return stage, lambda mask, keep: jnp.zeros(mask.shape)
  return stage, resolve(weights, built["weights"], field="weights")

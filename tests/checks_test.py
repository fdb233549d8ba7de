"""Every bare function refuses arrays that are not what it says, by the name of the argument."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import losses, rewards
from tests.helpers.bare_functions import (
  BOOL,
  FREE,
  FUNCTIONS,
  SIZE,
  arguments,
  arrays_of,
  dims,
  named,
)

SIDES = ("mean_weights", "sum_weights", "batch_mean_weights")  # do not look at the other side


def those(wanted):
  """Runs a test on each function of which `wanted(name)` gives arguments, and on these."""
  found = {name: wanted(name) for name in FUNCTIONS}
  found = {name: names for name, names in found.items() if names}
  return pytest.mark.parametrize("name, names", found.items(), ids=found)


def refused(name, culprit, **changed):
  with pytest.raises(ValueError, match=rf"\b{re.escape(culprit)}\b"):
    FUNCTIONS[name](**arguments(name) | changed)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_right_passes(name):
  leaves = jax.tree.leaves(FUNCTIONS[name](**arguments(name)))
  assert leaves
  assert all(np.isfinite(x).all() for x in leaves)


@those(lambda name: {*arrays_of(name)} - {*FREE.get(name, ()), "other_mask"})
def test_a_python_number_is_no_array(name, names):
  for n in names:
    refused(name, n, **{n: 1.0})


def of_rows(name):
  """Arguments that must have as many rows as another."""
  names = {*arrays_of(name)} - {*FREE.get(name, ()), "components"}  # one component more is fine
  return names if len(names) > 1 and name not in SIDES else ()


@those(of_rows)
def test_a_row_too_many(name, names):
  for n in names:
    x = arguments(name)[n]
    refused(name, n, **{n: jnp.concatenate([x, x[:1]])})


@those(
  lambda name: [
    n for n in arrays_of(name) if named(n, BOOL) and (n != "other_mask" or name not in SIDES)
  ]
)
def test_masks_are_bool(name, names):
  for n in names:
    refused(name, n, **{n: arguments(name)[n].astype(jnp.float32)})


GROUPED = [
  *(n for n in FUNCTIONS if {"valid", "keep"} & {*arrays_of(n)} and hasattr(rewards, n)),
  *(n for n in FUNCTIONS if n.endswith("_advantage") and "keep" in arrays_of(n)),
  *("lowest", "nonconstant_groups", "outlier_kept_length", "qglas_weight", "drpo_positive_weights"),
]


@pytest.mark.parametrize("name", sorted({*GROUPED} - {"component_mix"}))
def test_a_flat_batch_is_no_group(name):
  flat = {}
  for n in arrays_of(name):
    shape = dims(name, n)
    flat[n] = arguments(name)[n]
    if "BG" in shape:
      flat[n] = flat[n].reshape(*(SIZE[d] for d in shape.split("BG")[0]), -1)
  with pytest.raises(ValueError, match=r"\[B, G\]"):
    FUNCTIONS[name](**arguments(name) | flat)


OF_PAIRS = [
  n
  for n in FUNCTIONS
  if (n.endswith("_loss") and {dims(n, a) for a in arrays_of(n)} <= {"B", ""})
  or n == "dynamic_beta"
]


@pytest.mark.parametrize("name", OF_PAIRS)
def test_values_of_tokens_are_no_pairs(name):
  assert len(OF_PAIRS) > 15
  wide = {
    n: jnp.repeat(arguments(name)[n][:, None], 6, 1) for n in arrays_of(name) if n != "baseline"
  }
  with pytest.raises(ValueError, match="one value a pair"):
    FUNCTIONS[name](**arguments(name) | wide)


def masks_beside_numbers(name):
  pairs = itertools.pairwise(arrays_of(name))
  return [(a, b) for a, b in pairs if named(a, BOOL) != named(b, BOOL) and name != "mean_weights"]


@those(masks_beside_numbers)
def test_a_mask_swapped_with_its_neighbour_is_refused(name, names):
  given = arguments(name)
  for a, b in names:
    with pytest.raises(ValueError, match=rf"\b({a}|{b})\b"):
      FUNCTIONS[name](**given | {a: given[b], b: given[a]})


def test_the_arguments_that_were_given_are_named():
  x, mask = jnp.zeros((2, 3)), jnp.ones((2, 3), bool)
  for loss in (losses.clipped_surrogate_loss, losses.cispo_loss, losses.sapo_loss):
    with pytest.raises(ValueError, match="log_probs, old_log_probs and mask"):
      loss(x, x[:, :2], x[:, 0], mask)
  with pytest.raises(ValueError, match="sampler_log_probs"):
    losses.truncated_importance(x, x[:, :2], mask)
  with pytest.raises(ValueError, match=r"targets must share.* 10\."):
    rewards.step_bonus_reward(x, mask, x, 10)

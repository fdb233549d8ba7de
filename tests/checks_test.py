"""Every bare function refuses arrays that are not what it says, by the name of the argument."""

import itertools
import re

import jax.numpy as jnp
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


def refused(name, culprit, **changed):
  with pytest.raises(ValueError, match=rf"\b{re.escape(culprit)}\b"):
    FUNCTIONS[name](**arguments(name) | changed)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_right_passes(name):
  FUNCTIONS[name](**arguments(name))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_python_number_is_no_array(name):
  for n in set(arrays_of(name)) - {*FREE.get(name, ()), "other_mask"}:
    refused(name, n, **{n: 1.0})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_row_too_many(name):
  names = set(arrays_of(name)) - {*FREE.get(name, ()), "components"}  # one component more is fine
  sides = {"mean_weights", "sum_weights", "batch_mean_weights"}  # which do not look at the other
  for n in names if len(names) > 1 and name not in sides else ():
    x = arguments(name)[n]
    refused(name, n, **{n: jnp.concatenate([x, x[:1]])})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_masks_are_bool(name):
  for n in arrays_of(name):
    if named(n, BOOL) and not (
      n == "other_mask" and name.split("_")[0] in ("sum", "mean", "batch")
    ):
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


@pytest.mark.parametrize("name", FUNCTIONS)
def test_swapped_neighbours_are_refused_where_their_types_or_shapes_differ(name):
  given, names = arguments(name), arrays_of(name)
  for a, b in itertools.pairwise(names):
    masks = named(a, BOOL) != named(b, BOOL)
    if masks and name not in ("mean_weights",):
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

"""Bare advantages and their stages give the same, whatever is left of a group."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import advantages
from tests.rollouts import random_rollouts

# What a stage reads besides rewards and keep, and what of it has another name in the bare function.
BARE = {
  "group_normalized": lambda r, rewards, keep: (rewards, keep),
  "group_centered": lambda r, rewards, keep: (rewards, keep),
  "leave_one_out": lambda r, rewards, keep: (rewards, keep),
  "batch_scaled": lambda r, rewards, keep: (rewards, keep),
  "budget_subgroup": lambda r, rewards, keep: (rewards, r.budget.target, keep),
  "qglas": lambda r, rewards, keep: (rewards, r.lengths, keep),
  "canon": lambda r, rewards, keep: (rewards, r.lengths, keep),
  "component_average": lambda r, rewards, keep: (jnp.stack([rewards, r.scores]), keep),
  "gdpo": lambda r, rewards, keep: (jnp.stack([rewards, r.scores]), keep),
  "difficulty_weighted": lambda r, rewards, keep: (rewards, r.correct, keep),
}
STAGE = {
  "canon": advantages.canon_length,
  "component_average": lambda: advantages.component_average(signals=("scores",)),
  "gdpo": lambda: advantages.gdpo(components=("reward", "scores")),
}
KEPT = {"all": lambda g: True, "none": lambda g: False, "one": lambda g: g == 0}


def test_the_table_has_every_pair():
  stages = {n for n in advantages.__all__ if f"{n}_advantage" in advantages.__all__}
  assert stages <= BARE.keys()


@pytest.mark.parametrize("name", BARE)
def test_shared_arguments_have_the_same_defaults(name):
  stage = STAGE.get(name, getattr(advantages, name, None))
  bare = inspect.signature(getattr(advantages, f"{name}_advantage")).parameters
  stage = inspect.signature(stage).parameters
  shared = [n for n in bare if n in stage]
  assert [bare[n].default for n in shared] == [stage[n].default for n in shared]


@pytest.mark.parametrize("kept", KEPT)
@pytest.mark.parametrize("group", [1, 4])
@pytest.mark.parametrize("name", BARE)
def test_bare_function_and_stage_agree(name, group, kept):
  r = random_rollouts(2, prompts=3, group=group)
  rewards = jax.random.normal(jax.random.key(0), r.lengths.shape)
  keep = jnp.broadcast_to(jnp.array([KEPT[kept](g) for g in range(group)]), r.lengths.shape)
  stage = STAGE.get(name, getattr(advantages, name, None))()
  got, _ = stage.apply(stage.init(), rewards, keep, r)
  want = getattr(advantages, f"{name}_advantage")(*BARE[name](r, rewards, keep))
  np.testing.assert_array_equal(got, want)
  assert np.isfinite(got).all()
  assert not got[~np.asarray(keep)].any()
  if group == 1 and name != "budget_subgroup":  # which compares with its budget's best, too
    assert not got.any()


@pytest.mark.parametrize("per_token", [True, False])
def test_whitening_of_what_is_left(per_token):
  r = random_rollouts(prompts=3, group=1)
  rewards = jnp.arange(3.0)[:, None]
  for keep in (r.valid, ~r.valid):
    stage = advantages.reinforce_baseline(per_token=per_token)
    got, _ = stage.apply((), rewards, keep, r)
    assert not got.any()
  none, _ = advantages.reinforce().apply((), rewards, ~r.valid, r)
  assert not none.any()

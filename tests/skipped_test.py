"""Loss or gradient that is not finite: the update is skipped, shown, and a run of them ends."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import recipes
from lcrl.training import loop
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from lcrl.training.skipped import PATIENCE, Skips
from tests.helpers import iterative_runs, pair_runs, rl_runs
from tests.rollouts import random_rollouts

pytestmark = pytest.mark.usefixtures("one_device")


def shaped_by(model, state, *, bad=()):
  """A batch of random rollouts; the scores of the groups `bad` are nan."""
  r = random_rollouts(vocab=10)
  r = dataclasses.replace(r, scores=r.scores.at[jnp.array(bad, int)].set(jnp.nan))
  return model.shape(state.recipe, r, step=state.step, key=jax.random.key(0))


def paid_by_score():
  """The reward is the score, nan where that is; the state counts batches."""
  return recipes.Stage(init=lambda: jnp.zeros(()), apply=lambda state, r: (r.scores, state + 1.0))


@pytest.fixture(scope="module")
def models(one_device):
  """Of one and of two updates a step, paid by `paid_by_score`."""
  patch = pytest.MonkeyPatch()
  patch.setattr(recipes.rewards, "correctness", paid_by_score)
  config = {"reward": {"fn": "correctness"}, "advantage": {"fn": "group_centered"}}
  build = lambda **train: build_learner(
    read(rl_runs.changed(**config, train=rl_runs.CONFIG["train"] | train))
  )
  yield {1: build(), 2: build(updates=2)}
  patch.undo()


def on_host(tree):
  return jax.tree.map(np.array, tree)


@pytest.mark.parametrize("updates", [1, 2])
def test_a_bad_update_changes_nothing_and_is_counted(models, updates):
  model = models[updates]
  state = model.initial()
  batch, states = shaped_by(model, state, bad=range(4))
  before = on_host(state)
  after, metrics = model.update(dataclasses.replace(state, recipe=states), batch)
  for name in ("params", "opt_state", "recipe"):
    jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(after, name))
  assert int(after.step) == 1
  assert metrics["skipped_updates"].value() == updates
  assert np.isnan(metrics["loss"].value())


def test_the_good_update_of_a_step_is_made(models):
  """Groups 0 and 2 are the first part, 1 and 3 the second, which alone is bad."""
  model = models[2]
  state = model.initial()
  before = on_host(state.params)
  batch, _ = shaped_by(model, state, bad=[1])
  state, metrics = model.update(state, batch)
  assert metrics["skipped_updates"].value() == 1
  moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), on_host(state.params), before)
  assert all(0 < x < 1 for x in jax.tree.leaves(moved) if x)
  assert max(jax.tree.leaves(moved)) > 0
  assert int(jax.tree.leaves(state.opt_state)[0]) == 1


def test_states_do_not_learn_from_rewards_that_are_no_numbers(models):
  model = models[1]
  state = model.initial()
  _, states = shaped_by(model, state)
  assert float(states.reward) == 1.0
  _, states = shaped_by(model, state, bad=[2])
  assert float(states.reward) == 0.0


class Out:
  def __init__(self, path, taken=()):
    self.path, self.lines, self.taken = path, [], taken

  def learned(self, step, numbers, line):
    self.lines.append((step, numbers, line))

  def steps(self):
    return self.taken


def test_only_steps_in_a_row_without_any_update_end_a_run(tmp_path):
  batch = {"tokens": jnp.arange(3), "keys": jax.random.split(jax.random.key(0), 2)}
  out = Out(tmp_path)
  skips = Skips(out, steps=100, updates=2)
  numbers = lambda skipped: {"loss": np.nan, "grad_norm": 1.0, "skipped_updates": skipped}
  for step, skipped in enumerate([2, 2, 0, 2, 2, 1, 2, 2]):
    skips(step, numbers(float(skipped)), "", batch)
  assert out.lines == []
  with pytest.raises(FloatingPointError, match=r"step 8: loss nan, gradient norm 1\..*\.npz"):
    skips(8, numbers(2.0), "a line", batch)
  assert [(step, line) for step, _, line in out.lines] == [(8, "a line")]
  (place,) = tmp_path.glob("*.npz")
  np.testing.assert_array_equal(np.load(place)["tokens"], np.arange(3))


def test_steps_before_a_resume_count(tmp_path):
  numbers = {"loss": np.nan, "grad_norm": 1.0, "skipped_updates": 1.0}
  skips = Skips(Out(tmp_path, [numbers, numbers]), steps=100)
  with pytest.raises(FloatingPointError, match="3 steps in a row"):
    skips(3, numbers, "", {})
  Skips(Out(tmp_path, [numbers, numbers, {"loss": 1.0}]), steps=100)(4, numbers, "", {})


EXPLODES = {"fn": "adamw", "learning_rate": 1e30}


def rl(_):
  config = rl_runs.changed(optimizer=EXPLODES, train__steps=6, checkpoint__every=1)
  return config, {"rollouts.tokens", "rollouts.mask", "rollouts.sampler_log_probs", "advantages"}


def preference(rows):
  config = pair_runs.changed(rows, loss__beta=1e38, checkpoint__every=1)
  return config, {"pairs.tokens", "pairs.mask", "ref_log_probs", "weights"}


def iterative(_):
  return iterative_runs.changed(optimizer=EXPLODES), {"pairs.tokens", "ref_log_probs"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [rl, preference, iterative])
def test_a_run_that_explodes_ends_with_its_batch_and_a_finite_checkpoint(kind, rows, tmp_path):
  config, arrays = kind(rows)
  with pytest.raises(FloatingPointError, match="3 steps in a row were skipped"):
    loop.train(config, tmp_path)
  text = (tmp_path / "metrics.jsonl").read_text()
  steps = [row for row in map(json.loads, text.splitlines()) if "time/step" in row]
  assert [row["skipped_updates"] for row in steps][-PATIENCE:] == [1.0] * PATIENCE
  assert all({"loss", "grad_norm"} <= row.keys() for row in steps)
  (place,) = tmp_path.glob("skipped_step_*.npz")
  assert place.name == f"skipped_step_{len(steps):08d}.npz"
  found = np.load(place)
  assert arrays <= {*found}
  assert not (tmp_path / "summary.json").exists()
  taken = [row["step"] for row in steps if not row["skipped_updates"]]
  assert Checkpoints(tmp_path / "checkpoints").steps()[-1:] == taken[-1:]

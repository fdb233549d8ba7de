"""One program or the host's loop: the same tokens, the same updates."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import testbed
from lcrl import data, policies, recipes, rewards
from lcrl.tasks.sums import ZERO, Sums
from lcrl.training import build, optimizers
from lcrl.training.keys import step_key
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.run import RlStep, make_pipeline
from lcrl.training.rl.settings import read
from tests.helpers.devices import limit_devices

SUMS = Sums(most=2)
SIZES = {"hidden_size": 32, "layers": 1, "heads": 2, "kv_heads": 2, "mlp_size": 48}
CONFIG = {
  "seed": 5,
  "budget": {"fn": "uniform", "low": 10, "high": 20, "cap": SUMS.response_length},
  "reward": {
    "fn": "length_penalty",
    "alpha": 0.01,
    "base": {"fn": "step_bonus", "alpha": 0.5},
  },
  "filter": {"fn": "nonconstant_reward"},
  "advantage": {"fn": "group_normalized"},
  "loss": {"fn": "clipped_surrogate"},
  "weights": {"fn": "token_mean"},
  "tokenizer": {"fn": "sums", "most": 2},
  "task": {"fn": "arithmetic", "most": 2, "size": 50, "seed": 3},
  "sampling": {"temperature": 1.0},
  "optimizer": {"fn": "adamw", "learning_rate": 3e-3},
  "mesh": {"data": 1, "fsdp": 1},
  "train": {
    "steps": 3,
    "prompts": 4,
    "group_size": 4,
    "max_tokens": SUMS.response_length,
    "max_prompt_tokens": SUMS.prompt_length,
  },
  "verify": {"workers": 1},
}


@pytest.fixture(scope="module")
def start():
  """A policy that has seen some workings, so that some of its answers are right."""
  policy = policies.make(policies.tiny(vocab_size=len(SUMS.symbols), **SIZES))
  optimizer = optimizers.adamw(learning_rate=1e-2)
  params = policy.init(jax.random.key(0))
  shown = {"sums": SUMS, "batch": 32, "recheck": 0.5, "sizes": (1.0, 1.0, 1.0)}
  run = jax.jit(partial(testbed.imitate, policy, optimizer, **shown))
  (params, _), losses = run(
    (params, optimizer.init(params)), jax.random.split(jax.random.key(1), 150)
  )
  assert losses[-10:].mean() < 0.5 * losses[:10].mean()
  return policy, params


def on_the_host(config, monkeypatch):
  """Rollouts of every step, and the final state."""
  limit_devices(monkeypatch)
  settings = read(config)
  model, tokenizer = build_learner(settings), build.build_tokenizer(settings)
  state, rollouts = model.initial(), []
  with build.rollout_worker(model, tokenizer, settings.built["task"], "task") as (task, worker):
    step = RlStep(model, task, make_pipeline(model, worker))
    for _ in range(settings.train.steps):
      state, _, batch = step(state)
      rollouts.append(jax.tree.map(np.asarray, batch.rollouts))
    stream = data.prompts(task, seed=settings.seed)
    ids = [stream[i].id for i in range(settings.train.steps * settings.train.prompts)]
  return rollouts, state, np.array(ids, np.int32).reshape(-1, settings.train.prompts)


@pytest.mark.slow
def test_the_scan_equals_the_hosts_loop(start, tmp_path, monkeypatch):
  policy, params = start
  policies.save(tmp_path / "start", policy, params)
  config = {**CONFIG, "policy": {"fn": "pretrained", "path": str(tmp_path / "start")}}
  rollouts, theirs, prompt_ids = on_the_host(config, monkeypatch)
  settings = read(config)
  recipe, weigh = recipes.from_config(settings.slots)
  optimizer = optimizers.adamw(learning_rate=3e-3)
  run = jax.jit(
    partial(
      testbed.reinforce,
      policy,
      recipe,
      optimizer,
      sums=SUMS,
      group_size=settings.train.group_size,
      max_tokens=settings.train.max_tokens,
      seed=settings.seed,
      data_seed=config["task"]["seed"],
      weigh=weigh,
    )
  )
  ours, curve = run(testbed.initial(params, recipe, optimizer), prompt_ids)

  right = np.array([r.correct.mean() for r in rollouts])
  assert 0 < right.mean() < 1  # something is learnt from both verdicts
  np.testing.assert_allclose(curve.accuracy, right, rtol=1e-6)
  np.testing.assert_allclose(curve.tokens, [r.lengths.mean() for r in rollouts], rtol=1e-6)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
  assert np.abs(ours.params["embed"] - params["embed"]).max() > 1e-3

  play = jax.jit(
    partial(testbed.roll_out, policy, sums=SUMS, max_tokens=SUMS.response_length, data_seed=3)
  )
  first = play(params, prompt_ids[0], jnp.arange(4), rollouts[0].budget, step_key(5, 0))
  for field in dataclasses.fields(first):
    a, b = getattr(first, field.name), getattr(rollouts[0], field.name)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), a, b)


@pytest.mark.slow
def test_coefficients_can_be_vmapped(start):
  policy, params = start
  optimizer = optimizers.adamw(learning_rate=3e-3)

  def run(alpha):
    recipe = recipes.from_config(CONFIG)[0]._replace(reward=rewards.length_penalty(alpha=alpha))
    state = testbed.initial(params, recipe, optimizer)
    return testbed.reinforce(
      policy,
      recipe,
      optimizer,
      state,
      jnp.arange(4).reshape(2, 2),
      sums=SUMS,
      group_size=4,
      max_tokens=SUMS.response_length,
      seed=0,
    )[1]

  alphas = jnp.array([0.0, 0.05])
  together = jax.jit(jax.vmap(run))(alphas)
  alone = jax.jit(run)
  for i, alpha in enumerate(alphas):
    for a, b in zip(together, alone(alpha), strict=True):
      np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-5)
  assert together.reward[0, 0] > together.reward[1, 0]


SINGLE, THREE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
  "way",
  [{"recheck": (0.0, 1.0), "sizes": SINGLE}, {"recheck": 0.0, "sizes": (THREE, SINGLE)}],
  ids=["steps that stand twice", "steps of single operands"],
)
def test_a_digit_tells_how_a_demonstration_works(way):
  sums = Sums(fewest=3, most=3)
  shown = jax.jit(lambda key: testbed.demonstrations(sums, key, batch=32, levels=2, **way))(
    jax.random.key(0)
  )
  digit, lengths = np.asarray(shown.tokens[:, 0]) - ZERO, np.asarray(shown.mask.sum(-1))
  assert {*digit} == {0, 1}
  assert lengths[digit == 0].max() < lengths[digit == 1].min()

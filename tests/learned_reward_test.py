"""A trained model's score as a reward: alone, in sums, gated, averaged, held at a target."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from configs import learned
from lcrl import advantages, rewards
from lcrl.registry import build
from lcrl.training import loop
from tests.rollouts import random_rollouts


def test_a_learned_score_alone_in_a_sum_and_gated_by_hand():
  # Scores 3, -1 and 9, centred at 1 and cut to [-1, 4]: 2, -1 and 4 (uncut 2, -2 and 8).
  r = dataclasses.replace(
    random_rollouts(prompts=1, group=3),
    correct=jnp.array([[True, False, False]]),
    signals={"rm": jnp.array([[3.0, -1.0, 9.0]])},
  )
  score = dict(fn="learned", name="rm", centre=1.0, low=-1.0, high=4.0)
  verdict = dict(fn="correctness", right=1.0, wrong=-0.5)
  for spec, want in (
    (score, [2.0, -1.0, 4.0]),
    (dict(score, weight=0.5, base=verdict), [2.0, -1.0, 1.5]),
    (dict(score, weight=0.5, only_correct=True, base=verdict), [2.0, -0.5, -0.5]),
    (dict(fn="length_penalty", alpha=0.0, base=score), [2.0, -1.0, 4.0]),
  ):
    stage = build(rewards, spec, field="reward")
    np.testing.assert_allclose(stage.apply(stage.init(), r)[0], [want], rtol=1e-6)
  with pytest.raises(ValueError, match="low must be below high, got 2 and 1"):
    rewards.learned_reward(jnp.ones(1), jnp.ones(1), low=2, high=1)


def test_a_learned_score_as_a_component_by_hand():
  """Of an average of components, and of the constraint of a Lagrangian."""
  r = dataclasses.replace(
    random_rollouts(prompts=1, group=2),
    valid=jnp.ones((1, 2), bool),
    correct=jnp.array([[True, False]]),
    signals={"rm": jnp.array([[0.0, 30.0]])},
  )
  # Verdict (1, 0) and score (0, 30) have deviations (.707, -.707) and (-.707, .707): mean 0.
  stage = build(advantages, dict(fn="component_average", signals=["rm"]), field="advantage")
  got = stage.apply((), r.correct * 1.0, r.valid, r)[0]
  np.testing.assert_allclose(got, [[0.0, 0.0]], atol=1e-6)
  # Multiplier tanh(0.5) = .462 of one component: (1 - .462) * .707 - .462 * .707 = .0536 and its
  # negative; the score's mean of 15 is above its target of 10, so the multiplier falls:
  # the slope is sech^2(.5) * 5 = 3.93, its norm cut to .5, and raw = .5 - .1 * .5.
  held = dict(fn="lagrangian", main=dict(fn="correctness"), targets=[10.0], start=0.5)
  stage = build(rewards, dict(held, components=[dict(fn="learned", name="rm")]), field="reward")
  paid, state = stage.apply(stage.init(), r)
  np.testing.assert_allclose(paid, [[0.0535744, -0.0535744]], rtol=1e-4)
  np.testing.assert_allclose(state.multipliers.raw, [0.45], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_a_smoke_run_learns_from_the_score(tmp_path):
  config = learned.get_config("gated,smoke").to_dict()
  config["train"]["steps"] = 1
  loop.train(config, tmp_path)
  steps = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
  assert [row["grad_norm"] > 0 for row in steps if "grad_norm" in row] == [True]

"""train.steps_ahead=1: what trains was sampled by an older policy, and the loss knows it."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.commands import export
from lcrl.mesh import sampler_mesh
from lcrl.sampling.engine import make_engine
from lcrl.training import loop
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl import run as rl
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from lcrl.types import Budget
from tests.helpers.devices import limit_devices
from tests.helpers.files import lines
from tests.helpers.methods import CAP, METHODS, WORDS, Run
from tests.helpers.rl_runs import changed, final_state

AHEAD = changed(train__steps_ahead=1)


pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(autouse=True)
def no_plots(monkeypatch):
  monkeypatch.setattr(rl, "finish", lambda *_, **__: {})


def ahead(method, **train):
  """The same method with its rollouts sampled ahead."""
  return {**method, "train": method.get("train", {}) | train | {"steps_ahead": 1}}


@pytest.mark.slow
def test_the_gradient_is_corrected_token_by_token(engine):
  """One update moves against sum of weights * stop_gradient(min(p / p_sampler, 2)) * A * log p."""
  descent = dict(fn="sgd", learning_rate=8.0, clip_norm=1e9)
  run = Run(engine, optimizer=descent, train=dict(steps_ahead=1))
  older = run.model.initial()
  sampler = jax.tree.map(jnp.copy, older.params)
  state, _ = run.steps(older, 1)
  params, batch = jax.tree.map(jnp.copy, state.params), run.batch(state)
  rows, mask = batch.rollouts, batch.rollouts.mask

  @jax.jit
  def log_probs(params):
    dense = jax.nn.log_softmax(run.model.policy.apply(params, rows.tokens)[..., :-1, :])
    said = jnp.take_along_axis(dense, rows.tokens[..., 1:, None], -1)[..., 0]
    return jnp.where(mask, jnp.pad(said, ((0, 0), (0, 0), (1, 0))), 0.0)

  theirs, ours = log_probs(sampler), log_probs(params)
  np.testing.assert_allclose(theirs, rows.sampler_log_probs, atol=1e-5)

  @jax.jit
  @jax.grad
  def gradient(params, high):
    ours = log_probs(params)
    w = jax.lax.stop_gradient(jnp.minimum(jnp.exp(ours - theirs), high))
    return -jnp.sum(batch.weights * w * batch.advantages[..., None] * ours)

  ratios = np.exp(ours - theirs)[np.asarray(mask)]
  assert ratios.min() < 0.9
  assert ratios.max() > 2.1
  state, _ = run.steps(state, 2)

  def off(high):
    moved = lambda a, b, grad: np.abs((np.asarray(a) - b) / 8.0 - grad).max()
    return max(jax.tree.leaves(jax.tree.map(moved, params, state.params, gradient(params, high))))

  assert off(2.0) < 1e-5
  assert off(jnp.inf) > 1e-3


@pytest.mark.slow
def test_a_policy_that_stays_samples_the_same(engine):
  """Keys, places in the data, budgets and what past steps say are those of the step that trains."""
  shrinking = dict(fn="geometric_points", start=14, end=5, points=2, total=3)
  still = METHODS["dapo"] | dict(
    seed=4,  # rounds are replaced in the first two steps, and the third one asks for more prompts
    budget=dict(fn="scheduled", schedule=shrinking),
    reward=dict(fn="length_dual", target=4, step_size=0.5),
    then=[dict(at=2, budget=dict(fn="fixed", target=9, cap=CAP))],
    optimizer=dict(fn="adamw", learning_rate=0.0),
    train=dict(max_rounds=3, window=2),
  )
  now, then = (
    run.steps(run.model.initial(), 3)[1]
    for run in (Run(engine, **still), Run(engine, **ahead(still)))
  )
  assert [batch.rollouts.budget.cap.max() for batch in now] == [14, 8, CAP]
  jax.tree.map(np.testing.assert_array_equal, now, then)


def test_what_is_launched_waits_for_nothing_more_from_the_host(engine):
  """All of it stands in the device's queue, before an update that is dispatched next."""
  worker = Run(engine).worker
  params, prompts = (
    worker.engine.policy.init(jax.random.key(0)),
    [worker.task.prompts[i] for i in (0, 1)],
  )
  limit = np.full((2, 4), CAP, np.int32)
  budget = Budget(limit, limit, 0 * limit)
  given = worker.render(prompts, np.arange(2, dtype=np.int32), budget), jax.random.key(1)
  want, _ = worker.start(params, *given).result()
  copy = worker.engine.prepared(params)
  pending = worker.start(copy, *given)
  jax.tree.map(lambda x: x.delete(), copy)
  jax.tree.map(np.testing.assert_array_equal, pending.result()[0], want)


@pytest.mark.slow
def test_resume_equals_never_stopping(engine, tmp_path):
  """With groups that are replaced, responses that are continued, entropy, and two updates."""
  method = METHODS["mrt"] | dict(advantage=dict(fn="canon_entropy"))
  run = Run(engine, **ahead(method, max_rounds=2, window=2, updates=2, pack=64))
  stopped, _ = run.steps(run.model.initial(), 2)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(2, stopped)
  checkpoints.wait()
  lost = dataclasses.replace(jax.tree.map(jnp.copy, stopped), pending=None)
  whole, last = run.steps(stopped, 4)
  again, _ = run.steps(Checkpoints(tmp_path).restore(run.model.abstract)[1], 4)
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert whole.pending is None
  _, sampled_now = run.steps(lost, 3)
  assert not np.array_equal(sampled_now[0].rollouts.tokens, last[0].rollouts.tokens)
  for rollouts in (batch.rollouts for batch in last):
    assert (rollouts.signals["entropy"][rollouts.mask] > 0).all()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, one_device):
  """A run; here and below without plots, which have their own tests."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(rl, "finish", lambda *_, **__: {})
    workdir = tmp_path_factory.mktemp("whole")
    loop.train(AHEAD, workdir)
  return workdir


def numbers(workdir):
  """What each step measured, without clocks."""
  timed = lambda name: "time" in name or "per_s" in name
  steps = [line for line in lines(workdir / "metrics.jsonl") if "loss" in line]
  return [{name: x for name, x in step.items() if not timed(name)} for step in steps]


def test_a_run_says_what_it_does(whole):
  told = json.loads((whole / "config.json").read_text())
  assert told["loss"]["loss"]["correction"] == {"fn": "truncated", "high": 2.0}
  assert "correction" not in told["config"]["loss"]
  gaps = [step["sampler_logp_diff"] for step in numbers(whole)]
  assert gaps[0] < 1e-5, "the first step trains on what its own policy sampled"
  assert min(gaps[1:]) > 0.1
  for step in lines(whole / "metrics.jsonl"):
    if "loss" in step:
      parts = sum(step[f"time/{part}"] for part in ("sample", "verify", "update"))
      assert 0 < parts <= step["time/step"]
      assert (step["time/compile"] > 0) == (step["step"] == 1)


@pytest.mark.slow
def test_sigterm_saves_what_is_pending(whole, tmp_path, monkeypatch):
  update = rl.update

  def update_and_ask(*args):
    result = update(*args)
    if int(result[0].step) == 2:
      os.kill(os.getpid(), signal.SIGTERM)
    return result

  with monkeypatch.context() as patch:
    patch.setattr(rl, "update", update_and_ask)
    loop.train(AHEAD, tmp_path)
  stopped = final_state(tmp_path, AHEAD)
  assert int(stopped.step) == 2
  with monkeypatch.context() as patch:  # three devices, over which four prompts cannot be split
    limit_devices(patch, 3)
    model = build_learner(export.anywhere(read(AHEAD), prompts=3))
    params = export.restore(tmp_path, model)[1]
  jax.tree.map(np.testing.assert_array_equal, params, stopped.params)
  loop.train(AHEAD, tmp_path)
  assert numbers(tmp_path) == numbers(whole)
  jax.tree.map(
    np.testing.assert_array_equal, final_state(tmp_path, AHEAD), final_state(whole, AHEAD)
  )


@pytest.mark.slow
def test_devices_that_only_sample_give_the_same_numbers(whole, tmp_path, monkeypatch):
  limit_devices(monkeypatch, 3)
  config = changed(train__steps_ahead=1, sampling__devices=2)
  loop.train(config, tmp_path)
  for mine, theirs in zip(numbers(tmp_path), numbers(whole), strict=True):
    assert mine == pytest.approx(theirs, abs=1e-5)
  evaluations = [lines(place / "evaluations.jsonl") for place in (tmp_path, whole)]
  assert evaluations[0] == evaluations[1]


def test_groups_are_chosen_where_they_are_sampled(tmp_path, monkeypatch):
  limit_devices(monkeypatch, 3)
  choosing = dict(filter={"fn": "nonconstant_reward"}, train__max_rounds=2, train__steps=2)
  choosing["reward"] = {"fn": "length_dual", "target": 4, "step_size": 0.5}  # it has a state
  loop.train(changed(train__steps_ahead=1, sampling__devices=2, **choosing), tmp_path)
  assert numbers(tmp_path)[0]["rounds"] == 2


def test_two_bytes_a_number_travel_to_devices_that_sample(monkeypatch):
  limit_devices(monkeypatch, 3)
  model = build_learner(read(changed(train__steps_ahead=1, sampling__devices=2, mesh__fsdp=1)))
  mesh = sampler_mesh(model.mesh, 2)
  assert not {*mesh.devices.flat} & {*model.mesh.devices.flat}
  sampler = make_engine(
    model.policy,
    max_tokens=CAP,
    end_ids=WORDS.end_ids,
    pad_id=WORDS.pad_id,
    dtype="bfloat16",
    mesh=mesh,
    source=model.mesh,
  )
  copy = sampler.prepared(model.initial().params)
  assert sampler.prepared(copy) is copy
  for leaf in jax.tree.leaves(copy):
    assert leaf.ndim == 1 or leaf.dtype == jnp.bfloat16
    assert leaf.sharding.device_set == {*mesh.devices.flat}


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"train__steps_ahead": 2}, r"train\.steps_ahead must be 0 or 1, got 2"),
    ({"loss": {"fn": "kl_cov"}}, r"loss\.fn='kl_cov' takes no correction"),
    (
      {"then": [{"at": 2, "loss": {"fn": "drpo", "max_length": 9}}]},
      r"then\[0\]\.loss\.fn='drpo' takes no correction",
    ),
    (
      {"reward": {"fn": "pear"}, "task__signals": {"fn": "think_tags"}, "train__max_rounds": 2},
      r"reward or filter needs \['entropy'\], which with train\.steps_ahead=1 is known",
    ),
    ({"train__steps_ahead": 0, "sampling__devices": 1}, r"sampling\.devices must be 0 unless"),
    ({"sampling__devices": 1}, r"sampling\.devices=1 of 1: none is left to train"),
  ],
)
def test_bad_configs_are_refused_by_name(fields, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    loop.train(changed(**{"train__steps_ahead": 1, **fields}), tmp_path)

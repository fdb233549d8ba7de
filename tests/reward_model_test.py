"""Reward models: their losses by hand, what they read of a row, their runs, and as a signal."""

import copy
import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import crf
from lcrl import losses
from lcrl.commands.export import export
from lcrl.losses import reward_model
from lcrl.mesh import make_mesh
from lcrl.policies import make, tiny
from lcrl.policies.hf import Source
from lcrl.training import build, loop
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.packed import PackedScore
from lcrl.training.pairs.run import read_data
from lcrl.training.reward_model import head, metrics
from lcrl.training.reward_model.learned import providers
from lcrl.training.reward_model.run import build_learner
from lcrl.training.reward_model.settings import read
from lcrl.training.rl.pipeline import RolloutPipeline
from lcrl.types import PairBatch, Pairs
from tests.helpers.files import lines
from tests.rollouts import random_rollouts

TINY = {"fn": "fresh", "vocab_size": 258, "hidden_size": 16, "layers": 1, "mlp_size": 16}
CONFIG = {
  "run": "reward_model",
  "seed": 3,
  "loss": {"fn": "pairwise"},
  "lora": {"rank": 2, "alpha": 4.0, "targets": ("query", "down")},
  "data": {"fn": "pairs", "rows": {"fn": "jsonl", "path": ""}, "window": 32, "held_out": 0.25},
  "batches": {"fn": "stratified", "size": 8},
  "policy": TINY,
  "tokenizer": {"fn": "utf8"},
  "optimizer": {"fn": "adamw", "learning_rate": 3e-2},
  "mesh": {"data": 1, "fsdp": 1},
  "train": {"steps": 8, "pack": 64},
  "eval": {"pairs": 16},
  "checkpoint": {"every": 4, "keep": 9},
}

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Answers that say "yes" are chosen, and worth 1; the others are as long."""
  folder = tmp_path_factory.mktemp("data")
  words = [chr(ord("a") + i % 26) * (1 + i // 26) for i in range(60)]
  pairs = [{"prompt": f"{x}?", "chosen": f"yes {x}", "rejected": f"nay {x}"} for x in words]
  single = [
    {"prompt": row["prompt"], "response": row[side], "score": float(side == "chosen")}
    for row in pairs
    for side in ("chosen", "rejected")
  ]
  for name, rows in (("pairs", pairs), ("scored", single)):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(text)
  return folder


def changed(folder, file="pairs", **sections):
  config = copy.deepcopy(CONFIG) | sections
  config["data"]["rows"]["path"] = str(folder / f"{file}.jsonl")
  return config


REGRESSION = {
  "loss": {"fn": "regression"},
  "batches": {"fn": "bucketed", "size": 8, "lengths": (16, 32)},
  "train": {"steps": 10},
}


def regression(folder):
  """Of single answers with scores, padded, the whole model."""
  config = changed(folder, "scored", **REGRESSION)
  config["data"]["fn"] = "responses"
  del config["lora"]
  return config


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory, one_device):
  workdir = tmp_path_factory.mktemp("trained")
  loop.train(changed(folder), workdir)
  return workdir


def final_state(workdir, config):
  return Checkpoints(workdir / "checkpoints").restore(build_learner(read(config)).abstract)[1]


def a_batch(scores):
  """A pair batch of two rows, the second of which only fills it."""
  pairs = Pairs(
    tokens=jnp.zeros((2, 2, 3), jnp.int32),
    mask=jnp.ones((2, 2, 3), bool),
    lengths=jnp.full((2, 2), 3, jnp.int32),
    valid=jnp.array([True, False]),
    pair_ids=jnp.array([0, -1], jnp.int32),
    scores=jnp.array(scores),
    signals={},
  )
  keys = jax.random.split(jax.random.key(0), 2)
  return PairBatch(pairs, jnp.array([1.0, 0.0]), jnp.zeros((2, 3)), keys)


def test_losses_by_hand():
  # z = 2 - 0.5 - 1 = 0.5, -log sigmoid(0.5) = log(1 + e^-0.5); centring 0.1 * 2.5^2 = 0.625
  loss = losses.bradley_terry_loss(jnp.array([2.0]), jnp.array([0.5]), margin=1.0, centring=0.1)
  np.testing.assert_allclose(loss, [math.log1p(math.exp(-0.5)) + 0.625], rtol=1e-6)
  # (2 - 1)^2 and (0.5 - 1)^2, their mean; the second row counts nothing, its nan neither
  batch = a_batch([[1.0, 1.0], [jnp.nan, jnp.nan]])
  rewards = jnp.array([[2.0, 0.5], [7.0, 7.0]])
  for stage, want in (
    (reward_model.regression(), 0.625),
    (reward_model.pairwise(), math.log1p(math.exp(-1.5))),
  ):
    value, grads = jax.jit(jax.value_and_grad(lambda r, s=stage: s.apply((), r, batch)[0]))(rewards)
    np.testing.assert_allclose(value, want, rtol=1e-6)
    np.testing.assert_array_equal(grads[1], 0)
    assert grads[0, 0] * grads[0, 1] < 0  # one shall rise, the other fall


def test_what_is_read_of_a_row():
  """The state at the last token of the answer, whatever follows it, packed or not."""
  policy = head.with_head(Source(plain := make(tiny(16, hidden_size=16)), None, plain.init)).policy
  params = policy.init(jax.random.key(1))
  kernel = jax.random.normal(jax.random.key(2), (16,))
  params |= {head.HEAD: {"kernel": kernel, "bias": jnp.array(0.5)}}
  rows = random_rollouts(prompts=2, group=2)
  tokens = rows.tokens.at[0, 1, :5].set(rows.tokens[0, 0, :5])  # they share how they begin
  rows = dataclasses.replace(rows, tokens=tokens)
  got = jax.jit(head.make_scorer(policy))(params, rows)
  packed = PackedScore(
    jax.jit(head.make_scorer(policy, pack=24), static_argnames="sizes"),
    make_mesh(data=1, fsdp=1),
    policy,
    {"width": 24, "shards": 1, "pieces": 1},
  )
  np.testing.assert_allclose(packed(params, rows), got, rtol=1e-5)
  after = jnp.cumsum(rows.mask, -1) == rows.lengths[..., None]
  other = jnp.where(after & ~rows.mask, 15 - rows.tokens, rows.tokens)
  assert (other != rows.tokens).any()
  states = np.asarray(policy.hidden(params, other))
  last = np.take_along_axis(states, np.asarray(rows.lengths)[..., None, None] + 2, -2)[:, :, 0]
  np.testing.assert_allclose(got, last @ np.asarray(kernel) + 0.5, rtol=1e-5)


def test_a_run_learns_to_prefer(trained, folder):
  summary = json.loads((trained / "summary.json").read_text())
  start, final = (summary["pairs"][when] for when in ("start", "final"))
  assert summary["start"]["accuracy"] == start["accuracy"] == 0.5
  assert start["margin"] == 0.0
  assert summary["accuracy"] == final["accuracy"] > 0.9
  assert final["margin"] > 0
  assert abs(final["reward_length_correlation"]) < 0.5  # length says nothing here
  assert final["chosen_length"] == final["rejected_length"] == pytest.approx(summary["tokens"])
  assert "## Rewards and length" in (trained / "report.md").read_text()
  steps = [row for row in lines(trained / "metrics.jsonl") if "loss" in row]
  assert steps[0]["loss"] == pytest.approx(math.log(2))
  state = final_state(trained, changed(folder))
  assert set(state.params) == {"query", "down", "reward"}  # adapters and head are saved
  assert float(abs(state.params["query"]["b"]).max()) > 0


@pytest.mark.slow
def test_resume_equals_never_stopping(trained, folder, tmp_path):
  config = changed(folder)
  loop.train({**config, "train": {**config["train"], "steps": 4}}, tmp_path)
  loop.train(config, tmp_path)
  want, got = final_state(trained, config), final_state(tmp_path, config)
  jax.tree.map(np.testing.assert_array_equal, got, want)
  assert lines(tmp_path / "evaluations.jsonl")[-1] == lines(trained / "evaluations.jsonl")[-1]


def test_regression_on_scored_answers(folder, tmp_path):
  summary = loop.train(regression(folder), tmp_path)
  start, final = (summary["pairs"][when] for when in ("start", "final"))
  assert start["score_error"] == pytest.approx(math.sqrt(0.5))  # 0 and 1, half of each
  assert final["score_error"] < 0.5
  assert final["score_correlation"] > 0.5
  assert start["score_correlation"] is None
  assert summary["start"]["accuracy"] == 0.5
  assert summary["accuracy"] > 0.9


def test_correlations_by_hand():
  rewards, lengths = jnp.array([[1.0, 0.0], [3.0, 2.0]]), jnp.array([[2, 4], [6, 8]])
  found = jax.jit(metrics.look)(rewards, 2 * rewards, lengths, jnp.ones(2, bool))
  # centred: rewards (-.5, -1.5, 1.5, .5), lengths (-3, -1, 1, 3): 6 / sqrt(5 * 20)
  assert float(found["reward_length_correlation"]) == pytest.approx(0.6)
  assert float(found["score_correlation"]) == pytest.approx(1.0)
  assert float(found["score_error"]) == pytest.approx(math.sqrt((1 + 0 + 9 + 4) / 4))
  assert float(found["longer_chosen"]) == float(found["longer_preferred"]) == 0.0


@pytest.mark.slow
def test_it_scores_rollouts_of_a_run(trained, folder, tmp_path, monkeypatch):
  """CRF's smoke run with a trained reward model in place of a random one."""
  config = crf.get_config("smoke").to_dict()
  config |= {"policy": TINY, "learned": {"conciseness": {"path": str(trained)}}}
  seen, read_ = [], RolloutPipeline.add_signals
  monkeypatch.setattr(
    RolloutPipeline, "add_signals", lambda *xs: seen.append(read_(*xs)) or seen[-1]
  )
  loop.train(config, tmp_path)
  state = final_state(trained, changed(folder))
  model = build_learner(read(changed(folder, train={"steps": 1})))
  params = model.policy_params(state.params)
  reward = params[head.HEAD]
  assert len(seen) == 2
  for rollouts in seen:
    states = np.asarray(model.policy.hidden(params, rollouts.tokens))
    want = states @ np.asarray(reward["kernel"]) + np.asarray(reward["bias"])
    end = rollouts.mask.shape[-1] - 1 - np.argmax(np.asarray(rollouts.mask)[..., ::-1], -1)
    want = np.take_along_axis(want, end[..., None], -1)[..., 0]
    np.testing.assert_allclose(rollouts.signals["conciseness"], want, rtol=1e-4, atol=1e-6)
    assert np.std(want) > 0


def test_errors_name_the_field(trained, folder, tmp_path):
  model, utf8 = build_learner(read(changed(folder))), build.build_tokenizer(read(changed(folder)))
  sums = build.build_tokenizer(read(changed(folder, tokenizer={"fn": "sums"})))
  ask = lambda spec, tokenizer=utf8: providers({"brief": spec}, model, tokenizer, ["brief"])
  (tmp_path / "config.json").write_text(json.dumps({"config": {"run": "sft"}}))
  for wrong, message in (
    (lambda: ask({"path": str(folder)}), r"learned\.brief\.path: .* is not a run folder"),
    (lambda: ask({"path": str(tmp_path)}), r"learned\.brief\.path: .* of 'sft', no reward model"),
    (lambda: ask({"path": str(trained)}, sums), r"learned\.brief\.path: .* another vocabulary"),
    (lambda: ask({"fn": "x"}), r"learned\.brief takes a path alone, or .*, got \['fn'\]"),
    (lambda: providers({"x": {}}, model, utf8, []), r"learned\.x takes a path"),
    (
      lambda: providers({"x": {"path": "."}}, model, utf8, ["y"]),
      r"nothing reads learned\.x: the stages need \['y'\]",
    ),
    (lambda: read(changed(folder, sampling={})), r"unknown config section \['sampling'\]"),
    (lambda: export(trained, tmp_path / "out"), "'reward_model' has no policy that answers"),
  ):
    with pytest.raises(ValueError, match=message):
      wrong()
  for config, need in (
    (changed(folder, loss={"fn": "regression"}), "scores"),
    (regression(folder) | {"loss": {"fn": "pairwise"}}, "rejected"),
  ):
    s = read(config)
    with pytest.raises(ValueError, match=rf"the loss needs \['{need}'\]"):
      read_data(build_learner(s), build.build_tokenizer(s))

"""Rows at strengths of their own: the same as merging, and what a run learns from them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.policies import lora
from lcrl.training import loop, scorer, strengths
from lcrl.training.pairs.learner import build_learner
from lcrl.training.pairs.settings import read
from lcrl.types import Pairs
from tests.helpers.pair_runs import changed

SFT = {
  "run": "sft",
  "loss": {"fn": "nll"},
  "weights": {"fn": "token_mean"},
  "reference": None,
  "data__fn": "responses",
  "train__strengths": True,
}


def config_of(rows, **fields):
  config = changed(rows, **SFT | fields)
  config["train"]["pack"] = fields.get("train__pack")
  return config


def answers(seed, size=8):
  """[size, 1, 12] random rows of a prompt of 4 tokens and an answer, each with a strength."""
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, 24, (size, 1, 12)).astype(np.int32)
  mask = np.broadcast_to(np.arange(12) >= 4, tokens.shape)
  scores = rng.uniform(-0.5, 1.5, (size, 1)).astype(np.float32)
  rows = np.ones(size, bool), np.arange(size, dtype=np.int32)
  return Pairs(tokens, mask, mask.sum(-1).astype(np.int32), *rows, scores, {})


def test_a_row_is_scored_by_the_model_at_its_strength():
  policy = policies.make(policies.tiny(24, hidden_size=16, layers=1, mlp_size=16))
  params, pairs = policy.init(jax.random.key(0)), answers(0, 2)
  init, _ = lora.adapters(policy, rank=2, targets=("query", "down"))
  adapted = jax.tree.map(lambda x: x + 0.3, init(jax.random.key(1)))
  score = strengths.make_scorer(scorer.make_scorer, policy)
  weights = jnp.asarray(np.random.default_rng(1).normal(size=pairs.mask.shape))

  def at_once(adapted):
    joined = lora.with_adapters(params, adapted, alpha=4.0)
    return score(joined, pairs).log_probs

  def merged(adapted, i):
    scaled = {n: x | {"b": pairs.scores[i, 0] * x["b"]} for n, x in adapted.items()}
    one = jax.tree.map(lambda x: x[i : i + 1], pairs)
    return scorer.make_scorer(policy)(lora.merge(params, scaled, alpha=4.0), one).log_probs

  def one_by_one(adapted):
    return jnp.concatenate([merged(adapted, i) for i in range(2)])

  sums = lambda f: jax.jit(jax.value_and_grad(lambda x: jnp.sum(weights * f(x))))(adapted)
  (value, slopes), (want, wanted) = sums(at_once), sums(one_by_one)
  np.testing.assert_allclose(value, want, rtol=1e-4)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
  jax.tree.map(close, slopes, wanted)
  plain = scorer.make_scorer(policy)(lora.with_adapters(params, adapted, alpha=4.0), pairs)
  assert np.abs(plain.log_probs - at_once(adapted)).max() > 0.1
  with pytest.raises(ValueError, match="these params have none"):
    score(params, pairs)


@pytest.fixture
def chains(tmp_path):
  """A file of chains, all of one score; None: without."""

  def write(score):
    rows = [{"prompt": f"{i}?", "response": f"{i} is {i}"} for i in range(24)]
    rows = rows if score is None else [row | {"score": score} for row in rows]
    path = tmp_path / f"{score}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)

  return write


def test_strength_one_is_plain_tuning_and_zero_is_none(chains):
  mesh = {"data": 2, "fsdp": 1}
  after = {}
  for on in (False, True):
    config = config_of(chains(1.0), train__strengths=on, mesh=mesh)
    model = build_learner(read(config), devices=jax.devices()[:2])
    take = model.make_update(model.base())
    for score in (1.0, 0.0) if on else (1.0,):
      pairs = answers(3, config["batches"]["size"])
      pairs = dataclasses.replace(pairs, scores=np.full_like(pairs.scores, score))
      state = model.initial()
      start = jax.tree.map(np.asarray, state.params)
      state, _ = take(state, model.derive(model.place(pairs), None, state.step))
      after[on, score] = jax.tree.map(np.asarray, state.params)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
  jax.tree.map(close, after[True, 1.0], after[False, 1.0])
  jax.tree.map(np.testing.assert_array_equal, after[True, 0.0], start)
  assert np.abs(after[True, 1.0]["down"]["b"] - start["down"]["b"]).max() > 1e-3


@pytest.mark.usefixtures("one_device")
@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"lora": None}, r"train\.strengths needs a section lora"),
    ({"train__pack": 64}, r"train\.strengths needs train\.pack=None"),
    (
      {"run": "preference", "loss": {"fn": "dpo"}, "reference": {"fn": "shared"}, "weights": None},
      r"train\.strengths needs run='sft'",
    ),
    ({}, r"goes by the column score, which a row lacks"),
  ],
)
def test_what_cannot_be_is_refused_by_name(chains, tmp_path, fields, message):
  with pytest.raises(ValueError, match=message):
    loop.train(config_of(chains(None), **fields), tmp_path / "run")

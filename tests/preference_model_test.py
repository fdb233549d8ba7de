"""Preference models of pairs: cycles that no reward explains, and runs that are paid by them."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import losses, rewards
from lcrl.data import pair_builders
from lcrl.data.pair_builders import Samples
from lcrl.preferences import group_preferences, preference_score
from lcrl.training import build, loop
from lcrl.training.iterative import pool as pools
from lcrl.training.iterative import run as iterative
from lcrl.training.iterative.settings import read as read_rounds
from lcrl.training.reward_model.learned import providers
from lcrl.training.reward_model.run import build_learner
from lcrl.training.reward_model.settings import read
from lcrl.training.workdir import Workdir
from tests.helpers.iterative_runs import changed as rounds

TINY = {"fn": "fresh", "vocab_size": 258, "hidden_size": 16, "layers": 1, "mlp_size": 16}
CONFIG = {
  "run": "reward_model",
  "seed": 3,
  "loss": {"fn": "general_preference"},
  "data": {"fn": "pairs", "window": 32, "held_out": 0.25},
  "batches": {"fn": "stratified", "size": 12},
  "policy": TINY,
  "tokenizer": {"fn": "utf8"},
  "optimizer": {"fn": "adamw", "learning_rate": 1e-2},
  "mesh": {"data": 1, "fsdp": 1},
  "train": {"steps": 20, "pack": None},
  "eval": {"pairs": 60},
  "checkpoint": {"every": 20, "keep": 1},
}
BEATS = (("paper", "rock"), ("scissors", "paper"), ("rock", "scissors"))
pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  """Of pairs in a cycle: paper beats rock, scissors beat paper, rock beats scissors."""
  path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
  pairs = [
    {"prompt": f"{x}?", "chosen": chosen, "rejected": rejected}
    for x in "abcdefghijklmnopqrst"
    for chosen, rejected in BEATS
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in pairs))
  return CONFIG | {"data": CONFIG["data"] | {"rows": {"fn": "jsonl", "path": str(path)}}}


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory, one_device):
  workdir = tmp_path_factory.mktemp("trained")
  loop.train(config, workdir)
  return workdir


@pytest.mark.slow
def test_a_cycle_is_learned_by_pairs_and_by_no_reward(config, trained, tmp_path):
  """Whatever a reward says of the three answers, it is wrong of at least one pair in three, and
  the mean of log(1 + exp(-gap)) is least at equal rewards: log 2."""
  general = json.loads((trained / "summary.json").read_text())
  assert general["accuracy"] == 1.0
  assert general["pairs"]["final"]["margin"] > 3
  scalar = loop.train(config | {"loss": {"fn": "pairwise"}}, tmp_path)
  assert scalar["accuracy"] <= 2 / 3
  steps = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert min(row["loss"] for row in steps if "loss" in row) > 0.6


def test_scores_by_hand():
  # (1, 2) against (3, -1) against (0, 1): 2 * 3 - 1 * -1 = 7, 2 * 0 - 1 * 1 = -1
  a, b, c = (jnp.array(x) for x in ([1.0, 2.0], [3.0, -1.0], [0.0, 1.0]))
  assert [float(preference_score(a, x)) for x in (a, b, c)] == [0.0, 7.0, -1.0]
  assert float(preference_score(b, a)) == -7.0
  chances = group_preferences(jnp.stack([a, b, c]))
  np.testing.assert_allclose(chances + chances.T, 1.0, rtol=1e-6)
  # Rewards 2 and 5 as embeddings (1, r): log-odds of 2 - 5
  loss = losses.general_preference_loss(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 5.0]]))
  np.testing.assert_allclose(loss, [math.log1p(math.exp(3.0))], rtol=1e-6)
  with pytest.raises(ValueError, match=r"must be \[\.\.\., 2K\], got \(3,\)"):
    preference_score(jnp.ones(3), jnp.ones(3))
  # Of two valid answers the first is preferred with 0.8: (0.5 + 0.8) / 2 and (0.2 + 0.5) / 2.
  chances = jnp.array([[[0.5, 0.8, 0.1], [0.2, 0.5, 0.1], [0.9, 0.9, 0.5]]])
  valid = jnp.array([[True, True, False]])
  paid = rewards.win_rate_reward(jnp.array([[1.0, 1.0, 0.0]]), chances, valid, weight=2.0)
  np.testing.assert_allclose(paid[0, :2], [1 + 1.3, 1 + 0.7], rtol=1e-6)


def test_a_tournament_by_hand():
  """Of four, 0 beats 1 and 3 beats 2; 3 beats 0, and 2, which lost, loses to 1, too."""
  chances = np.full((4, 4), 0.5)
  for winner, loser in ((0, 1), (3, 2), (3, 0), (1, 2), (2, 0), (1, 3)):
    chances[winner, loser], chances[loser, winner] = 0.9, 0.1
  samples = lambda signals, scores=(0.0, 0.0, 0.0, 0.0): Samples(
    np.ones(4), np.ones(4, bool), np.array(scores), signals=signals
  )
  assert pair_builders.tournament(samples({"preferences": chances})) == [(3, 2)]
  assert pair_builders.tournament(samples({})) == []
  assert pair_builders.tournament(samples({}, (1.0, 4.0, math.nan, -2.0))) == [(1, 3)]
  cycle = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
  three = Samples(np.ones(3), np.ones(3, bool), np.zeros(3), signals={"preferences": cycle})
  assert pair_builders.tournament(three) == []  # 2 beats 0 in the last match, and loses to 1


@pytest.mark.slow
def test_rounds_read_the_models_preferences(trained, tmp_path):
  """The pool holds them, the rewards are win rates, and pairs carry those of their sides."""
  config = rounds(
    reward={"fn": "preferred"},
    learned={"preference": {"path": str(trained)}},
    policy=TINY,
    tokenizer={"fn": "utf8"},
    train={"steps": 2, "max_prompt_tokens": 40},
    loss={"fn": "sppo"},
    reference={"fn": "latest"},
    pairing={"fn": "tournament"},
  )
  with iterative.begin(read_rounds(config), Workdir(tmp_path, config)) as run:
    state, numbers, _ = run.steps_from(0)(run.initial())
  pool = pools.on_host(state.pending)
  assert numbers["grad_norm"] > 0
  chances = pool.preferences
  np.testing.assert_allclose(chances + chances.swapaxes(1, 2), 1.0, atol=1e-6)
  assert np.abs(chances - 0.5).max() > 0.01
  np.testing.assert_allclose(pool.rewards, chances.mean(-1), rtol=1e-5)
  pairs = pools.pairs_of(pool, lambda samples: [(2, 0)])
  assert len(pairs) == len(chances)
  for pair, among in zip(pairs, chances, strict=True):
    np.testing.assert_allclose(pair.signals["win_rates"], among[[2, 0]].mean(-1), rtol=1e-6)


def test_errors_name_the_field(config, trained, tmp_path):
  model = build_learner(read(config))
  utf8 = build.build_tokenizer(read(config))
  ask = lambda name: providers({name: {"path": str(trained)}}, model, utf8, [name])
  small = lambda **fields: read(config | {"head": fields})
  bad_rounds = rounds(reward={"fn": "preferred"}, teacher={"fn": "jsonl", "path": "x"})
  for wrong, message in (
    (lambda: small(dimensions=3), "head.dimensions must be even, got 3"),
    (lambda: small(temperature=0.0), "head.temperature must be positive"),
    (
      lambda: read(config | {"head": {}, "loss": {"fn": "pairwise"}}),
      "nothing reads the section head: loss.fn='pairwise'",
    ),
    (lambda: ask("brief"), r"learned\.brief\.path: .* holds a preference model"),
    (lambda: iterative.build_learner(read_rounds(bad_rounds)), "no teacher with it"),
  ):
    with pytest.raises(ValueError, match=message):
      wrong()

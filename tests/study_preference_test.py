"""The study of preference losses: its pairs, its losses, what it measures, its report."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.studies.preference import contrast, report, smollm2
from lcrl.data import tokenizers
from lcrl.data.sources import Encoded
from lcrl.training import optimizers
from tests.rollouts import random_rollouts


def linear(params, rows):
  """A policy whose log-prob of a token is a number of its own: scores in no time."""
  return jnp.where(rows.mask, params[rows.tokens], 0.0)


def pairs_of(chosen, rejected, width=6):
  """One pair of two answers, of token 1 and of token 2, after no prompt."""
  mask = np.arange(width) < np.array([chosen, rejected])[:, None]
  tokens = np.where(mask, [[1], [2]], 0)
  return contrast.Pairs(*(jnp.array(x)[None] for x in (tokens, mask, np.zeros(mask.shape), True)))


def wanted(kind, right, lengths):
  """Pairs (i, j) of one prompt that the kind's name allows, by their gain in length."""
  every = [(i, j) for i in range(len(right)) for j in range(len(right)) if right[i]]
  gap = {(i, j): int(lengths[i] - lengths[j]) for i, j in every}
  both, mixed = ([p for p in every if right[p[1]] == side] for side in (True, False))
  return {
    "long over short": {p: gap[p] for p in both if gap[p] > 0},
    "short over long": {p: -gap[p] for p in both if gap[p] < 0},
    "right over wrong": dict.fromkeys(mixed, 0),
    "right over wrong, equal lengths": {p: 0 for p in mixed if gap[p] == 0},
    "right, long over wrong, short": {p: gap[p] for p in mixed if gap[p] > 0},
  }[kind]


@pytest.mark.parametrize("kind", contrast.KINDS)
def test_pairs_are_what_their_kind_says(kind):
  r = random_rollouts(prompts=24, group=5)
  got = contrast.paired(contrast.KINDS[kind], r, r.sampler_log_probs)
  for b in range(24):
    fit = wanted(kind, r.correct[b], r.lengths[b])
    assert bool(got.valid[b]) == bool(fit)
    if fit:
      i, j = max(fit, key=fit.get)  # the first of the largest
      np.testing.assert_array_equal(got.tokens[b], r.tokens[b, jnp.array([i, j])])
      np.testing.assert_array_equal(got.mask[b], r.mask[b, jnp.array([i, j])])
      np.testing.assert_array_equal(got.ref[b], r.sampler_log_probs[b, jnp.array([i, j])])
  assert got.valid.sum() > 0


def test_length_alone_tells_the_losses_apart():
  params, key = jnp.array([0.0, -0.3, -1.1]), jax.random.key(0)

  def values(pairs):
    log_probs = linear(params, pairs)
    return {name: float(f(log_probs, pairs, key)[0]) for name, f in contrast.LOSSES.items()}

  equal, unequal = values(pairs_of(4, 4)), values(pairs_of(5, 2))
  sums = ("DPO", "R-DPO", "LD-DPO", "SamPO")
  assert len({round(equal[name], 6) for name in sums}) == 1
  assert len({round(value, 4) for value in unequal.values()}) == len(unequal)
  # h = -0.3 * 5 + 1.1 * 2 = 0.7, and DPO's beta is 0.1: log(1 + exp(-0.07)).
  assert unequal["DPO"] == pytest.approx(np.log1p(np.exp(-0.07)), rel=1e-5)
  # Three of the chosen tokens lie beyond the rejected side: they count 0.3 each.
  assert unequal["LD-DPO"] == pytest.approx(np.log1p(np.exp(-0.1 * (-0.3 * 2.9 + 2.2))), rel=1e-5)
  assert unequal["R-DPO"] == pytest.approx(np.log1p(np.exp(-0.07 - 0.1 * 3)), rel=1e-5)


@pytest.mark.parametrize(
  ("loss", "pieces"), [(0, 2), *((i, 1) for i in range(len(contrast.LOSSES)))]
)
def test_learning_raises_the_chosen_side_of_valid_pairs(loss, pieces):
  good = pairs_of(4, 3)
  nothing = jax.tree.map(lambda x: jnp.zeros_like(x), good)._replace(ref=good.ref * jnp.nan)
  pairs = jax.tree.map(lambda *x: jnp.concatenate(x), nothing, good)  # one is none, and is nan
  optimizer = optimizers.adamw(learning_rate=0.01)
  start = jnp.zeros(3)
  params, _ = contrast.learn(
    linear,
    optimizer,
    contrast.LOSSES,
    (start, optimizer.init(start)),
    pairs,
    jnp.int32(loss),
    jax.random.key(0),
    steps=5,
    size=8,
    pieces=pieces,
  )
  # Adam moves by about the learning rate a step, whatever the gradient's size.
  np.testing.assert_allclose(params, [0.0, 0.05, -0.05], rtol=0.1)


def test_measures_of_a_policy_that_likes_every_token_more():
  start = -jnp.arange(16.0) / 8
  probe = random_rollouts(prompts=6, group=5)
  own = random_rollouts(seed=3, prompts=6, group=5)
  on_own, on_probe = linear(start, own), linear(start, probe)
  for kind, agreement in (("long over short", 1.0), ("short over long", 0.0)):
    held = contrast.paired(contrast.KINDS[kind], probe, on_probe)
    point = contrast.measure(linear, start + 0.25, own, on_own, probe, on_probe, held)
    assert point.accuracy == pytest.approx(float(own.correct.mean()))
    assert point.tokens == pytest.approx(float(own.lengths.mean()))
    assert point.kl == pytest.approx(0.25 * float(own.lengths.mean()), rel=1e-5)
    assert point.slope == pytest.approx(0.25, rel=1e-4)
    assert point.correlation == pytest.approx(1.0, rel=1e-4)
    assert point.agreement == agreement
    means = np.array(on_probe.sum(-1) / probe.lengths) + 0.25
    centred = [x - x.mean(-1, keepdims=True) for x in (means, np.array(probe.lengths))]
    expected = np.corrcoef(*(x.ravel() for x in centred))[0, 1]
    assert point.mean_correlation == pytest.approx(expected, abs=1e-4)


def test_the_report_says_what_the_numbers_say(tmp_path):
  start, end = np.full((2, 1), 20.0), np.array([[30.0], [31.0]])
  point = {name: np.hstack([start, end]).tolist() for name in contrast.Point._fields}
  unjudged = {name: values for name, values in point.items() if name != "accuracy"}
  pairs = {"pairs": [7, 9], "chosen": [5.0, 6.0], "rejected": [4.0, 3.0]}
  found = {
    "sizes": {"pairs": 8},
    "seeds": [0, 1],
    "steps": [0, 6],
    "device": "CPU",
    "commit": "abc",
    "seconds": 1.0,
    "kinds": {
      "judged": {"pairs": pairs, "losses": {"DPO": point, "SimPO": point}},
      "unjudged": {"pairs": pairs, "losses": {"DPO": unjudged}},
    },
  }
  report.write(tmp_path, "small", "A title", "a command", found)
  text = (tmp_path / "small.md").read_text()
  assert text.count("8 pairs a seed; chosen 5.5 tokens, rejected 3.5.") == 2
  assert text.count("| DPO | 30.5 [30.0, 31.0] |") == 2
  assert "| start | 20.0 | 2000.0 |  |  |  | 20.00 |  |" in text
  assert text.count("right, %") == 1
  assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")


class FakeLab:
  """A laboratory whose policy is one number: an update adds the index of the loss to it."""

  sizes = smollm2.SMALL._replace(points=2, steps=5)
  tokenizer = tokenizers.utf8()

  def __init__(self):
    self.optimizer = optimizers.sgd(learning_rate=1.0)

  def play(self, params, worker, prompts, answers, key):
    return random_rollouts(prompts=len(prompts), group=answers)

  def score(self, params, rows):
    return jnp.zeros(rows.mask.shape)

  def measure(self, params, *_):
    return contrast.Point(*[params] * len(contrast.Point._fields))

  def learn(self, carry, pairs, loss, key, *, steps):
    return carry[0] + loss * steps, carry[1]


@pytest.mark.parametrize("judged", [True, False])
def test_every_loss_starts_alike_and_is_measured_at_every_point(judged):
  worker = SimpleNamespace(verifier=None if judged else smollm2.Unjudged())
  pairs, key = pairs_of(4, 3), jax.random.key(0)
  question = smollm2.Question(worker, [None] * 4)
  found = smollm2.runs(FakeLab(), question, jnp.array(-1.0), jnp.array(0.0), pairs, pairs, key)
  assert found["pairs"] == {"pairs": [1], "chosen": [4.0], "rejected": [3.0]}
  for loss in contrast.LOSSES:
    index = [*smollm2.HOW].index(loss)
    assert found["losses"][loss]["tokens"] == [[0, 5 * index, 10 * index]]
  assert found["losses"]["before SFT"]["tokens"] == [[-1]]
  assert ("accuracy" in found["losses"]["DPO"]) == judged


def test_pairs_as_rows_of_the_window():
  ids = lambda *x: np.array(x, np.int32)
  long = Encoded(1, ids(*range(9)), (ids(1), ids(2)))
  short = Encoded(2, ids(8, 9), (ids(1, 2, 3), ids(4)))
  sizes = smollm2.SMALL._replace(prompt_tokens=3, answer_tokens=3)
  pairs = smollm2.laid([long, short], 2, sizes, 7)
  assert pairs.tokens[0].tolist() == [[8, 9, 1, 2, 3, 7], [8, 9, 4, 7, 7, 7]]
  assert pairs.mask[0].astype(int).tolist() == [[0, 0, 1, 1, 1, 0], [0, 0, 1, 0, 0, 0]]
  assert pairs.valid.tolist() == [True, False]


def test_imitation_looks_at_the_chosen_side_alone():
  pairs, log_probs = pairs_of(4, 3), jnp.log(jnp.array([[[0.5] * 6, [0.1] * 6]]))
  assert smollm2.imitation(log_probs, pairs).mean() == pytest.approx(np.log(2), rel=1e-6)

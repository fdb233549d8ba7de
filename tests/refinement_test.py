"""Rounds with a second turn: what is asked, what pairs, and that they stop and go on."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from lcrl.data import pair_builders, tokenizers
from lcrl.sampling.steering import budget_forcing
from lcrl.tasks.task import Prompt, plain
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.iterative import pool as pools
from lcrl.training.iterative.refine import Refinement, columns
from lcrl.training.iterative.run import begin, pool_metrics
from lcrl.training.iterative.settings import read
from lcrl.training.workdir import Workdir
from tests.helpers.iterative_runs import changed
from tests.rollouts import random_rollouts

pytestmark = pytest.mark.usefixtures("one_device")
WORDS, GROUP, ASK = tokenizers.utf8(), 2, "Again!"
REFINED = changed(
  refine={"instruction": ASK},
  pairing={"fn": "refined_vs_first"},
  tokenizer={"fn": "utf8"},
  policy={"fn": "fresh", "vocab_size": 258, "hidden_size": 16, "layers": 1, "mlp_size": 16},
  round={"group_size": GROUP},
  train={"max_prompt_tokens": 64},
)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  """The run, its pool after a step, and the states of two steps, the first restored."""
  folder = tmp_path_factory.mktemp("run")
  with begin(read(REFINED), Workdir(folder, REFINED)) as run:
    checkpoints, take = Checkpoints(folder / "kept", keep=9), run.steps_from(0)
    first = take(run.initial())
    checkpoints.save(1, first.state)
    checkpoints.wait()
    whole = jax.tree.map(np.array, take(first.state).state)
    state = checkpoints.restore(run.abstract, 1)[1]
    again = jax.tree.map(np.array, run.steps_from(1)(state).state)
    yield whole, again, first.numbers


def rows(pool):
  """[N][column][rollout], prompt and answer as texts."""
  at = lambda b, g: (
    WORDS.decode(pool.tokens[b, g][: pool.mask[b, g].argmax()].tolist()),
    pool.tokens[b, g][pool.mask[b, g]].tolist(),
  )
  count, columns = pool.mask.shape[:2]
  return [
    [[at(b, c * GROUP + g) for g in range(GROUP)] for c in range(columns // GROUP)]
    for b in range(count)
  ]


@pytest.mark.slow
def test_each_answer_is_refined_in_a_second_turn(started):
  pool = started[0].pending
  assert pool.mask.shape[:2] == (4, 4 * GROUP)
  assert pool.mask.any(-1).all()
  for first, direct, turn, turn_first in rows(pool):
    for g in range(GROUP):
      (prompt, said), (also, better) = first[g], direct[g]
      assert prompt == also
      text = WORDS.decode(said)
      assert turn[g] == (f"{prompt}{text}\n{ASK}\n", better)
      assert turn_first[g] == (turn[g][0], said)
  np.testing.assert_array_equal(pool.rewards[:, :GROUP], pool.rewards[:, 3 * GROUP :])
  np.testing.assert_array_equal(pool.rewards[:, GROUP : 2 * GROUP], pool.rewards[:, 4:6])
  lengths = pool.mask.sum(-1)
  np.testing.assert_allclose(pool.rewards, -0.02 * lengths, rtol=1e-5)


def test_both_turns_make_pairs(started):
  pool = started[0].pending
  pairs = pools.pairs_of(pool, pair_builders.refined_vs_first)
  shorter = pool.mask[:, GROUP : 2 * GROUP].sum(-1) < pool.mask[:, :GROUP].sum(-1)
  assert len(pairs) == 2 * shorter.sum() > 0
  asked = [ASK in WORDS.decode(pair.prompt.tolist()) for pair in pairs]
  assert sum(asked) == shorter.sum()
  for pair in pairs:
    assert pair.scores[0] > pair.scores[1]
    assert len(pair.sides[0]) < len(pair.sides[1])
    assert np.abs(pair.signals["ref_log_probs"]).max() > 0


def test_stopped_within_a_round_it_goes_on_bit_equal(started):
  whole, again, numbers = started
  jax.tree.map(np.testing.assert_array_equal, whole, again)
  assert {"accuracy", "refined/accuracy", "refined/length/mean", "refined/reward"} <= numbers.keys()
  lengths = whole.pending.mask.sum(-1)
  assert numbers["length/mean"] == pytest.approx(lengths[:, :GROUP].mean())
  assert numbers["refined/length/mean"] == pytest.approx(lengths[:, GROUP : 2 * GROUP].mean())


def stub(limit, control=None, **task):
  """A worker as far as a refinement reads it."""
  task = {"render": plain, "variables": {}, "signals": None} | task
  return types.SimpleNamespace(
    task=types.SimpleNamespace(**task),
    tokenizer=WORDS,
    prompt_limit=limit,
    engine=types.SimpleNamespace(control=control),
    end_ids=WORDS.end_ids,
  )


def test_a_second_turn_that_is_too_long_makes_no_pair(started):
  pool, asked = started[0].pending, []
  own = lambda x: x[:, :GROUP]
  first = dataclasses.replace(
    random_rollouts(prompts=4, group=GROUP),
    tokens=own(pool.tokens),
    mask=own(pool.mask),
    lengths=own(pool.mask).sum(-1),
    sampler_log_probs=np.zeros(own(pool.mask).shape),
  )
  first = jax.tree.map(np.asarray, first)
  prompts = [Prompt(b, ({"role": "user", "content": "?"},), "") for b in range(4)]

  def sample(prompts, g):
    asked.append([len(prompt.messages) for prompt in prompts])
    return jax.tree.map(lambda x: x if x.ndim == 1 else x[:, g : g + 1], first)

  lengths = [len(WORDS.decode(said).encode()) for _, said in rows(pool)[0][0]]
  limit = 2 + 2 + len(ASK) + min(lengths)  # with the ends of lines
  refinement = Refinement(ASK, stub(limit))
  turns = refinement.sampled(first, prompts, sample)
  want = [[len(WORDS.decode(s).encode()) <= min(lengths) for _, s in r[0]] for r in rows(pool)]
  assert turns.fits.tolist() == want
  assert turns.fits.any() > turns.fits.all()
  assert np.transpose(asked).tolist() == np.where(turns.fits, 3, 1).tolist()
  _, mask, refines = columns(first, refinement.direct(first, turns), turns)
  present = np.tile(turns.fits, (1, 3))
  assert mask.any(-1).tolist() == np.concatenate([turns.fits | True, present], 1).tolist()
  seen = []
  some = dataclasses.replace(pool, mask=mask, refines=refines)
  pools.pairs_of(some, lambda samples: seen.append(samples) or [])
  for b, samples in enumerate(seen):
    kept = np.flatnonzero(mask[b].any(-1))
    own = samples.signals["refines"]
    assert np.where(own < 0, -1, kept[own]).tolist() == refines[b, kept].tolist()
  shown = pool_metrics(some)
  assert shown["refined/length/mean"] == mask[:, GROUP : 2 * GROUP].sum() / turns.fits.sum()
  nothing = dataclasses.replace(some, mask=mask & (np.arange(4 * GROUP) < GROUP)[None, :, None])
  assert np.isnan(pool_metrics(nothing)["refined/length/mean"])


def test_a_second_turn_shows_no_budget():
  with pytest.raises(ValueError, match=r"leave out task\.render"):
    Refinement(ASK, stub(9, render=lambda prompt, target, level: None))
  forcing = budget_forcing(3, max_thinking_tokens=2)
  with pytest.raises(ValueError, match=r"leave out a sampling\.control that forces others"):
    Refinement(ASK, stub(9, forcing))


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"refine": None}, r'pairing\.fn="refined_vs_first" needs a section refine'),
    ({"teacher": {"fn": "jsonl", "path": "x"}}, "no teacher with it"),
    ({"refine": {"instruct": "x"}}, "refine.instruct"),
    ({"reward": {"fn": "preferred"}, "learned": {}}, "no refine with it"),
  ],
)
def test_bad_configs_are_refused_by_name(tmp_path, fields, message):
  config = {n: x for n, x in (REFINED | fields).items() if x is not None}
  with (
    pytest.raises(ValueError, match=message),
    begin(read(config), Workdir(tmp_path, config)) as run,
  ):
    run.steps_from(0)


def test_the_end_of_an_answer_is_not_in_the_second_turn():
  letters = types.SimpleNamespace(
    decode=lambda ids: "".join(".abc"[i] for i in ids),
    encode=list,
    render=lambda messages: messages[0]["content"],
  )
  worker = stub(9)
  worker.tokenizer, worker.end_ids = letters, (0,)
  first = jax.tree.map(np.asarray, random_rollouts(prompts=2, group=1, length=3))
  tokens = np.array([[[1, 2, 0]], [[1, 2, 3]]], np.int32)
  first = dataclasses.replace(first, tokens=tokens, mask=np.ones(tokens.shape, bool))
  said = []

  def sample(prompts, _):
    said.extend(prompt.messages[1]["content"] for prompt in prompts)
    return first

  prompts = [Prompt(b, ({"role": "user", "content": "?"},), "") for b in range(2)]
  Refinement(ASK, worker).sampled(first, prompts, sample)
  assert said == ["ab", "abc"]

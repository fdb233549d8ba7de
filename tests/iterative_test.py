"""Iterative runs: rounds of answers, pairs and updates; stopped anywhere, they go on bit-equal."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from lcrl import tasks
from lcrl.data import pair_builders, tokenizers
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.verify import Verdict
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.iterative import pool as pools
from lcrl.training.iterative.pool import Pool
from lcrl.training.iterative.run import begin, build_learner
from lcrl.training.iterative.settings import read
from lcrl.training.iterative.teacher import Teacher
from lcrl.training.workdir import Workdir
from lcrl.types import Outcome
from tests.helpers.iterative_runs import CONFIG, STEPS, UPDATES, changed
from tests.rollouts import AtOnce

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def started(tmp_path_factory):
  """A run, the checkpoints of all its steps, their states, and the pairs that it showed."""
  folder = tmp_path_factory.mktemp("run")
  with begin(read(CONFIG), Workdir(folder, CONFIG)) as run:
    checkpoints, take, state = (
      Checkpoints(folder / "kept", keep=9),
      run.steps_from(0),
      run.initial(),
    )
    states = [on_host(state)]
    for step in range(1, STEPS + 1):
      state, numbers, line = take(state)
      checkpoints.save(step, state)
      states.append(on_host(state))
      assert "pairs" in line
      assert numbers["round/pairs"] > 1
    checkpoints.wait()
    yield run, checkpoints, states, (folder / "pairs.jsonl").read_text()


def on_host(tree):
  return jax.tree.map(np.array, tree)


def assert_equal(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("stop", range(1, STEPS))
def test_stopped_at_any_step_it_goes_on_bit_equal(started, stop):
  run, checkpoints, states, _ = started
  _, state = checkpoints.restore(run.abstract, stop)
  assert_equal(on_host(state), states[stop])
  take = run.steps_from(stop)
  for _ in range(stop, STEPS):
    state = take(state).state
  assert_equal(on_host(state), states[STEPS])


def test_pairs_of_a_round_are_shown_once(started):
  _, _, states, shown = started
  lines = [json.loads(line) for line in shown.splitlines()]
  assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
  assert {line["step"] for line in lines} == {1, UPDATES + 1}
  asked = tokenizers.sums().decode(states[1].pending.tokens[0, 0].tolist())
  assert asked.startswith(lines[0]["prompt"])
  assert lines[0]["scores"][0] > lines[0]["scores"][1]
  assert len(lines[0]["chosen"]) < len(lines[0]["rejected"])


def test_a_round_keeps_its_answers_and_the_next_has_new_ones(started):
  _, _, states, _ = started
  first, second = states[1].pending, states[UPDATES + 1].pending
  for step in range(1, UPDATES + 1):
    assert_equal(states[step].pending, first)
    assert states[step].position == CONFIG["round"]["prompts"]
  assert (first.tokens != second.tokens).any()
  assert states[STEPS].position == 2 * CONFIG["round"]["prompts"]
  assert not np.intersect1d(first.prompt_ids, second.prompt_ids).size
  for a, b in itertools.pairwise(states):
    assert (a.params["embed"] != b.params["embed"]).any()
    assert b.counters["pairs"] == a.counters["pairs"] + 2


def test_log_probs_are_those_of_the_start_and_of_the_round(started):
  _, _, states, _ = started
  model = build_learner(read(CONFIG))
  for at in (0, UPDATES):
    pool = states[at + 1].pending
    for name, params in (("ref", states[0].params), ("previous", states[at].params)):
      expected = model.score(params, pool).log_probs
      np.testing.assert_allclose(pool.signals[f"{name}_log_probs"], expected, rtol=1e-5, atol=1e-6)
  gap = pool.signals["ref_log_probs"] - pool.signals["previous_log_probs"]
  assert np.abs(gap).max() > 0.01


@pytest.mark.slow
def test_slices_packing_and_adapters_change_no_round(started, tmp_path):
  _, _, states, _ = started
  train = {"prompts": 2, "micro_batches": 2, "pack": 50}
  config = changed(lora={"rank": 2, "alpha": 4.0}, train=train)
  with begin(read(config), Workdir(tmp_path, config)) as run:
    start = on_host(run.initial().params)
    state, numbers, _ = run.steps_from(0)(run.initial())
  got, want = state.pending, states[1].pending
  assert_equal((got.tokens, got.rewards), (want.tokens, want.rewards))
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  jax.tree.map(close, got.signals, want.signals)
  assert numbers["pairs"] == 2
  for name, adapter in state.params.items():  # at first a's gradient is 0, as b is
    assert_equal(adapter["a"], start[name]["a"])
    assert np.abs(adapter["b"]).max() > 0


def test_a_round_without_a_pair_leaves_the_policy_as_it_is(started):
  run, checkpoints, states, _ = started
  take = run.steps_from(UPDATES)
  take._choose = lambda samples: []
  state, numbers, _ = take(checkpoints.restore(run.abstract, UPDATES)[1])
  assert numbers["round/pairs"] == 0
  assert state.step == UPDATES + 1
  assert_equal(on_host(state.params), states[UPDATES].params)
  assert_equal(on_host(state.pending), states[UPDATES + 1].pending)


def test_pairs_of_a_pool():
  # A prompt of 2 tokens, then answers; the last two are the same, and the first is the best.
  rows = np.array([[[8, 9, 1, 2, 0], [8, 9, 3, 0, 0], [8, 9, 4, 4, 4], [8, 9, 4, 4, 4]]], np.int32)
  mask = rows % 8 > 0
  mask[..., 1] = False
  rewards = np.array([[3.0, 2.0, 1.0, 0.0]], np.float32)
  no = np.zeros((1, 4), bool)
  signals = {"ref_log_probs": np.arange(20.0).reshape(1, 4, 5)}
  states = pools.Stages((), ())
  pool = Pool(rows, mask, no, rewards, no, np.array([7], np.int32), signals, states)
  seen = []

  def choose(samples):
    seen.append(samples)
    return [(2, 3), *pair_builders.best_vs_worst(samples)]

  [pair] = pools.pairs_of(pool, choose)
  assert (seen[0].prompt_id, seen[0].lengths.tolist()) == (7, [2, 1, 3, 3])
  assert pair.prompt.tolist() == [8, 9]
  assert [side.tolist() for side in pair.sides] == [[1, 2], [4, 4, 4]]
  assert pair.scores == (3.0, 0.0)
  np.testing.assert_array_equal(pair.signals["ref_log_probs"], signals["ref_log_probs"][0, [0, 3]])
  expected = pair_builders.win_rates(rewards[0])[[0, 3]]
  np.testing.assert_allclose(pair.signals["win_rates"], expected, rtol=1e-6)

  moved = dataclasses.replace(
    pool, tokens=rows + np.eye(1, 5, dtype=np.int32) * [[0], [0], [0], [1]]
  )
  with pytest.raises(ValueError, match="prompt 7 do not begin alike"):
    pools.pairs_of(moved, choose)


class Here(AtOnce):
  """Verifies in this process: right is what ends with the reference."""

  def verify(self, items):
    right = [float(text.endswith(str(prompt.reference))) for text, prompt in items]
    return [Verdict(score, Outcome.OK if score else Outcome.WRONG) for score in right]


def test_a_teachers_right_answer_is_chosen_over_the_policys_wrong_ones(tmp_path):
  words = tokenizers.sums()
  task = tasks.arithmetic(size=3)
  asked = [prompt.messages[0]["content"] for prompt in task.prompts]
  said = [f"#{task.prompts[0].reference}", "#x".replace("x", "+" * 30), None]  # the second is long
  lines = [{"prompt": a, "response": b} for a, b in zip(asked, said, strict=True) if b]
  (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
  worker = RolloutWorker(task, words, None, Here(), None, 9)
  spec = {"fn": "jsonl", "path": str(tmp_path / "answers.jsonl")}

  # Two answers of the policy's own to each prompt, all wrong.
  rows, mask = np.zeros((3, 2, 20), np.int32), np.zeros((3, 2, 20), bool)
  for b, text in enumerate(asked):
    start = len(words.encode(text))
    rows[b, :, : start + 2] = [*words.encode(text), 3, 1]
    rows[b, 1, start] = 4
    mask[b, :, start : start + 2] = True
  no, ids = np.zeros((3, 2), bool), np.arange(3, dtype=np.int32)
  own = Pool(rows, mask, no, np.zeros((3, 2), np.float32), no, ids, {}, pools.Stages((), ()))
  pool = Teacher(spec, worker).joined(own, [task.prompts[i] for i in range(3)])
  assert pool.teacher.tolist() == [[False, False, True], [False] * 3, [False] * 3]
  assert pool.correct.tolist() == pool.teacher.tolist()
  assert pool.rewards[0].tolist() == [0, 0, 1]
  pairs = pools.pairs_of(pool, pair_builders.right_vs_wrong)
  assert [words.decode(pair.prompt) for pair in pairs] == [asked[0]] * 2
  assert [words.decode(side) for side in pairs[0].sides] == [f"{said[0]}.", "#."]
  assert [words.decode(side) for side in pairs[1].sides] == [f"{said[0]}.", "+."]

  (tmp_path / "answers.jsonl").write_text('{"prompt": "a1?", "response": "#1"}\n')
  with pytest.raises(ValueError, match="answers none of the task's prompts"):
    Teacher(spec, worker)


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"pairing": None}, r"no section \['pairing'\]"),
    ({"data": {}}, r"unknown config section \['data'\]"),
    ({"round": {"group_size": 1}}, "round.group_size must be at least 2"),
    ({"round": {"prompts": 6}}, "round.prompts must be a multiple of train.prompts=4, got 6"),
    ({"round": {"updates": 0}}, "round.updates must be at least 1, got 0"),
    ({"train": {"window": 2}}, "train.window"),
    ({"reference": None}, "section reference"),
    ({"loss": {"fn": "kto"}}, r"needs \['mismatched'\], which no round supplies"),
    ({"reward": {"fn": "length_penalty_reward"}}, r"reward\.fn=.* is not one of length_penalty, "),
    ({"reward": {"fn": "adactrl"}}, "reward needs"),
    ({"pairing": {"fn": "worst"}}, "pairing.fn='worst' is not one of"),
    ({"reference": {"fn": "latest", "beta": 1}}, "reference.beta is not an argument"),
  ],
)
def test_bad_configs_are_refused_by_name(tmp_path, fields, message):
  config = changed(**fields)
  with (
    pytest.raises(ValueError, match=message),
    begin(read(config), Workdir(tmp_path, config)) as run,
  ):
    run.steps_from(0)

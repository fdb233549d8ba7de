"""Collecting: groups that cannot teach are replaced, in the order of the stream."""

import dataclasses
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import advantages, budgets, filters, recipes, rewards
from lcrl.data.rows import Rows
from lcrl.losses import policy as losses
from lcrl.mesh import make_mesh
from lcrl.rollouts.grader import LocalPrompts
from lcrl.rollouts.worker import Interval
from lcrl.tasks.task import Prompt, Task
from lcrl.training.metrics import values
from lcrl.training.rl.collect import Collector, CollectRequest, pad_rows
from lcrl.training.rl.pipeline import RolloutPipeline
from lcrl.types import Recipe
from tests.rollouts import random_rollouts

RECIPE = Recipe(
  budget=budgets.fixed(target=9),
  reward=rewards.correctness(),
  filter=filters.mixed_correctness(),
  advantage=advantages.group_normalized(),
  loss=losses.clipped_surrogate(),
)


@dataclasses.dataclass
class OneInFour:
  """A worker: every fourth prompt of the stream has right and wrong answers; the rest fail."""

  mesh = make_mesh(data=2, fsdp=1, devices=jax.devices()[:2])
  task = Task("one in four", [], None)
  engine = types.SimpleNamespace(slots=None)

  def render(self, prompts, index, budget):
    return prompts, index

  def start(self, params, local, key):
    prompts, index = local
    played = random_rollouts(prompts=len(prompts), length=12 if index[0] else 10)
    mixed = (index % 4 == 3)[:, None] & (np.arange(4) < 2)[None]
    ids = jnp.array([p.id for p in prompts], jnp.int32)
    played = dataclasses.replace(played, correct=jnp.array(mixed), prompt_ids=ids)
    interval = Interval(time.perf_counter(), time.perf_counter())
    return types.SimpleNamespace(timed_result=lambda: (played, None, interval), pool=None)


def collect(max_rounds, passed=(), **how):
  collector = Collector(
    lambda position: Prompt(100 + position, (), None),
    RolloutPipeline(OneInFour()),
    RECIPE,
    prompts=4,
    group_size=4,
    max_rounds=max_rounds,
    **how,
  )
  request = CollectRequest(recipes.init(RECIPE), 0, 0, passed)
  return collector.start(None, request).result()


def test_one_round_takes_what_comes():
  got = collect(1)
  assert (got.rounds, got.position, got.metrics) == (1, 4, {})
  np.testing.assert_array_equal(got.rollouts.prompt_ids, [100, 101, 102, 103])


def test_rounds_go_on_until_enough_groups_train():
  got = collect(9)
  assert (got.rounds, got.position) == (4, 16)
  np.testing.assert_array_equal(got.rollouts.prompt_ids, [103, 107, 111, 115])
  assert got.rollouts.tokens.shape == (4, 4, 12)  # the first round's rows were shorter
  assert values(got.metrics)["sampled/accuracy"] == pytest.approx(1 / 8)


def test_a_short_batch_is_filled_with_groups_that_do_not_train():
  got = collect(2)
  assert (got.rounds, got.position) == (2, 8)
  np.testing.assert_array_equal(got.rollouts.prompt_ids, [103, 107, 100, 101])
  keep, _ = RECIPE.filter.apply((), jnp.zeros((4, 4)), got.rollouts)
  np.testing.assert_array_equal(keep.any(-1), [True, True, False, False])


@pytest.mark.parametrize(
  "passed, sampled, trained",
  [
    ([], 6, [103]),  # half as many again, before anything is known
    ([(8, 2), (4, 1)], 16, [103, 107, 111, 115]),  # a quarter passes: four times as many
    ([(16, 9)], 8, [103, 107]),  # 7.1, rounded down and then up to half batches
    ([(8, 3)], 10, [103, 107]),  # 8 / 3 * 4 = 10.7, rounded down
    ([(8, 0)], 20, [103, 107, 111, 115]),  # at most five times as many
  ],
)
def test_past_rates_say_how_many_prompts_a_round_takes(passed, sampled, trained):
  got = collect(1, passed, predict=True)
  assert (got.rounds, got.position) == (1, sampled)
  assert got.passed == (sampled, sampled // 4)
  np.testing.assert_array_equal(got.rollouts.prompt_ids[: len(trained)], trained)
  assert len(got.rollouts.prompt_ids) == 4


def test_a_round_is_cut_into_micro_batches_on_every_shard():
  got = collect(1, [(8, 3)], predict=True, multiple=2)  # 10 prompts would not do for 2 shards of 2
  assert got.position == 12


def test_a_sampler_with_slots_hears_how_long_answers_were():
  """So that the longest start first; nothing is known of the first round."""

  heard = []

  class Slots(OneInFour):
    engine = types.SimpleNamespace(slots=4)

    def render(self, prompts, index, budget):
      ids = np.array([p.id for p in prompts], np.int32)
      rows = Rows(None, None, None, index, ids, None)
      return LocalPrompts(prompts, rows, budget)

    def start(self, params, local, key):
      heard.append(local.rows.expected)
      return super().start(params, (local.prompts, local.rows.index), key)

  four = lambda position: Prompt(position % 4, (), None)
  collector = Collector(four, RolloutPipeline(Slots()), RECIPE, prompts=4, group_size=4)
  first = collector.start(None, CollectRequest(recipes.init(RECIPE), 0, 0, ())).result()
  collector.start(None, CollectRequest(recipes.init(RECIPE), 1, 4, ())).result()
  lengths = np.asarray(first.rollouts.lengths).mean(axis=1)
  np.testing.assert_array_equal(heard[0], np.zeros(4))
  np.testing.assert_allclose(heard[1], lengths)


def test_only_values_of_tokens_are_padded():
  r = random_rollouts()
  embeddings = jnp.ones((*r.lengths.shape, 2))
  more = dataclasses.replace(r, signals={"tokens": r.tokens * 1.0, "preference": embeddings})
  padded = pad_rows(more, r.tokens.shape[-1] + 3)
  assert padded.signals["tokens"].shape == padded.tokens.shape
  np.testing.assert_array_equal(padded.signals["preference"], embeddings)

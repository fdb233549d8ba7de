"""What is cut over devices is padded, or refused with the numbers that would do."""

import dataclasses
import types

import jax
import numpy as np
import pytest

from experiments.configs import variants
from lcrl import recipes
from lcrl.mesh import check_divides, first_devices, make_mesh, replicated, round_up_rows
from lcrl.tasks.task import Prompt, Task
from lcrl.training import kinds, memory
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.monitor import make_monitor
from lcrl.training.rl.settings import read
from lcrl.types import TrainState
from tests.rollouts import random_rollouts


def smoke(name="laser_d", **sections):
  config = variants()[name].config("smoke")
  for section, fields in sections.items():
    config[section] = config.get(section, {}) | fields
  return config


def test_smoke_modes_lie_on_any_number_of_devices():
  for name in variants():
    config = smoke(name)
    settings = kinds.kind(config).settings(config)
    for count in (1, 2, 3, 8):
      devices = first_devices(settings.mesh.devices, jax.devices()[:count])
      assert make_mesh(**settings.mesh.axes, devices=devices).size == 1, name


def test_modes_that_no_config_has():
  for variant in variants().values():
    with pytest.raises(
      ValueError, match=r"mode must be one of .*full, smoke, got 'smoek'; did you "
    ):
      variant.config("smoek")


def test_the_numbers_that_would_do_are_named():
  mesh = make_mesh(data=4, fsdp=2)
  check_divides(mesh, prompts=16, pieces=2)
  with pytest.raises(ValueError, match=r"got 24 for 4 \* 2 \* 2; 16 or 32 would do"):
    check_divides(mesh, prompts=24, pieces=2)
  with pytest.raises(ValueError, match=r"batches\.size must be .*micro_batches, got 3 .*; 8 would"):
    check_divides(mesh, prompts=3, field="batches.size", of="train.micro_batches")
  assert [round_up_rows(mesh, n) for n in (1, 8, 9)] == [8, 8, 16]
  with pytest.raises(ValueError, match=r"mesh\.devices=9 is more than the 8 devices here"):
    first_devices(9)
  with pytest.raises(ValueError, match="does not cover 3 devices"):
    make_mesh(data=2, fsdp=1, devices=first_devices(3))


def test_dedicated_devices_are_refused_in_several_processes(monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  config = smoke(sampling={"devices": 1}, train={"steps_ahead": 1}, loss={"correction": None})
  with pytest.raises(ValueError, match=r"sampling\.devices=1 works in one process, not in 2: with"):
    build_learner(read(config))


def test_a_monitor_set_that_no_device_shares_is_filled_up_and_the_repeats_are_not_seen():
  s = read(smoke(monitor={"every": 1, "prompts": 5}, train={"group_size": 8}))
  mesh = make_mesh(data=4, fsdp=1, devices=jax.devices()[:4])
  recipe, _ = recipes.from_config(s.slots)
  itself = lambda params: params
  model = types.SimpleNamespace(settings=s, mesh=mesh, recipe=recipe, acting=itself)
  whole = random_rollouts(prompts=8, group=8)
  whole = dataclasses.replace(whole, correct=whole.correct.at[5:].set(True))  # the repeats
  asked = []

  def start(params, prompts, key):
    asked.append([prompt.id for prompt in prompts])
    rollouts = jax.device_put(whole, replicated(mesh))
    return types.SimpleNamespace(result=lambda: (rollouts, None))

  render = lambda prompts, index, budget: prompts
  worker = types.SimpleNamespace(mesh=mesh, render=render, start=start)
  task = Task("five", [Prompt(i, (), None) for i in range(9)], len)
  state = TrainState(0, (), (), recipes.init(recipe), 0, {})
  found = make_monitor(model, task, worker)(state).recipe
  assert asked == [[0, 1, 2, 3, 4, 0, 1, 2]]
  five = jax.tree.map(lambda x: x[:5], whole)
  expected = recipe.reward.observe(state.recipe.reward, five)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(found.reward), expected)


def test_sizes_are_checked_against_the_machine(monkeypatch):
  for fields, message in (
    ({"group_size": 10**8}, r"train\.prompts \* train\.group_size: 400,000,000 rows of 272 tokens"),
    (
      {"max_tokens": 10**9},
      r"train\.prompts \* train\.group_size: 16 rows of 1,000,000,256 tokens",
    ),
  ):
    with pytest.raises(ValueError, match=message):
      build_learner(read(smoke(train=fields)))
  monkeypatch.setattr(memory, "host_memory", lambda: 1_000_000)
  with pytest.raises(ValueError, match="policy: parameters and optimizer take"):
    build_learner(read(smoke()))

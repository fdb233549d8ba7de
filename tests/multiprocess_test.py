"""Two processes train as one does: same tokens, same parameters, whatever lies on which.

Everything that happens on the host, or before groups are chosen, takes part: rounds are refilled,
responses are cut and verified again, rules are read off them, entropy is measured. The rollouts of
the second step are sampled ahead.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lcrl.training import loop
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.devices import limit_devices
from tests.helpers.rl_runs import changed

REPOSITORY = Path(__file__).parent.parent
FLAGS = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
CONFIG = changed(
  train__steps=2,
  train__group_size=2,
  train__max_rounds=2,
  train__max_tokens=4,
  train__steps_ahead=1,
  eval__prompts=4,
  budget={"fn": "fixed", "target": 3, "cap": 4},
  task={"fn": "arithmetic", "size": 64, "signals": {"fn": "patterns", "digit": "[0-9]"}},
  revise={"fn": "cut_to_target"},
  reward__base={"fn": "rule_fraction", "rules": ("digit",)},
  filter={"fn": "nonconstant_reward"},  # drops groups of equal reward, so that rounds are refilled
  advantage={"fn": "canon_entropy"},
  mesh={"data": 1, "fsdp": 2},  # rows and parameters are split over the processes
)
ROWS = """
import os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import jax
import numpy as np
from lcrl import mesh
process = int(sys.argv[2])
jax.distributed.initialize(sys.argv[1], 2, process)
apart = np.array(jax.devices())[[0, 2, 3, 1]]  # as a grid of chips may order them
for shape, rows in (
  ((4, 1, 1, 1), [[0, 1, 6, 7], [2, 3, 4, 5]]),
  ((2, 1, 1, 2), [[*range(8)], [*range(8)]]),  # both processes hold parts of both tensor groups
):
  grid = jax.sharding.Mesh(apart.reshape(shape), mesh.AXES)
  own = mesh.local_rows(grid, 8)
  assert own.tolist() == rows[process], own
  whole = mesh.to_global(grid, own)
  assert whole.shape == (8,)
  np.testing.assert_array_equal(mesh.to_local(whole), own)
  weigh = jax.jit(lambda x, y: (x * np.arange(8)).sum() + y)
  assert int(weigh(whole, mesh.replicate(grid, 1))) == 141
"""


WAITING = """
import sys, time
import jax
from experiments.train import join
from lcrl.training.peers import watched_peers
process = int(sys.argv[2])
join(sys.argv[1], 2, process)
with watched_peers():
  print("ready", flush=True)
  time.sleep(200 if process == int(sys.argv[3]) else 60)
"""


@pytest.fixture(autouse=True)
def two_devices(monkeypatch):
  limit_devices(monkeypatch, 2)


def start_two(command):
  """Starts `command(address, process)` as two processes of one device each."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  return [
    subprocess.Popen(
      [sys.executable, *command(address, process)],
      cwd=REPOSITORY,
      env={**os.environ, "XLA_FLAGS": FLAGS, "JAX_PLATFORMS": "cpu"},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for process in range(2)
  ]


def run_two(command):
  runs = start_two(command)
  try:
    said = [run.communicate(timeout=400)[0] for run in runs]
  finally:
    for run in runs:
      run.kill()
  assert [run.returncode for run in runs] == [0, 0], "\n".join(said)


def state(workdir):
  return Checkpoints(workdir / "checkpoints").restore(build_learner(read(CONFIG)).abstract)[1]


def numbers(workdir):
  """What the run measured, without clocks."""
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  timed = lambda name: "time" in name or "per_s" in name
  return [{name: x for name, x in row.items() if not timed(name)} for row in rows]


def responses(workdir):
  """The sampled rows of each step, in the order of the batch."""
  (part,) = (workdir / "samples").iterdir()
  rows = [json.loads(line) for line in part.read_text().splitlines()]
  return [[(r["prompt"], r["response"]) for r in rows if r["step"] == step] for step in (1, 2)]


def train_two(workdir, config):
  module = workdir.parent / "config.py"
  module.write_text(
    "from ml_collections import config_dict\n"
    f"def get_config():\n  return config_dict.ConfigDict({config!r})\n"
  )
  train = ["-m", "experiments.train", f"--config={module}", f"--workdir={workdir}", "--processes=2"]
  run_two(lambda address, i: [*train, f"--coordinator={address}", f"--process={i}"])


def test_two_processes_train_as_one(tmp_path):
  one, two = tmp_path / "one", tmp_path / "two"
  loop.train(CONFIG, one)
  train_two(two, CONFIG)

  want, got = state(one), state(two)
  start = build_learner(read(CONFIG)).initial().params
  moved = jax.tree.map(lambda a, b: abs(a - b).max(), start, want.params)
  assert min(jax.tree.leaves(moved)) > 1e-3
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got.params, want.params)
  assert got.counters == want.counters
  assert got.position == want.position > 2 * 4, "no round was refilled"
  for mine, theirs in zip(responses(two), responses(one), strict=True):
    assert mine[:2] == theirs[:2]  # the first group; each shows two of those that lie there
  for mine, theirs in zip(numbers(two), numbers(one), strict=True):
    assert mine == pytest.approx(theirs, abs=1e-5)
  assert (two / "summary.json").is_file()


def test_two_processes_go_on_with_what_one_has_sampled_ahead(tmp_path):
  """The rollouts of the second step come from a checkpoint that a single process wrote."""
  one, two = tmp_path / "one", tmp_path / "two"
  config = CONFIG | {"checkpoint": {"every": 1, "keep": 2}}
  loop.train(config, one)
  shutil.copytree(one, two)
  shutil.rmtree(two / "checkpoints" / "2")
  assert state(two).pending["rollouts"]["lengths"].shape == (4, 2)
  train_two(two, config)
  want, got = state(one), state(two)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got.params, want.params)
  assert got.position == want.position
  for mine, theirs in zip(numbers(two), numbers(one), strict=True):
    assert mine == pytest.approx(theirs, abs=1e-5)


def test_rows_lie_where_the_mesh_says():
  run_two(lambda address, i: ["-c", ROWS, address, str(i)])


@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_ends_with_one_sentence_when_another_has(dies):
  runs = start_two(lambda address, i: ["-c", WAITING, address, str(i), str(1 - dies)])
  for run in runs:
    while run.stdout.readline() != "ready\n":
      assert run.poll() is None
  runs[dies].kill()
  said, _ = runs[1 - dies].communicate(timeout=60)
  assert runs[1 - dies].returncode != 0
  assert f"process {dies} of this run has ended, so process {1 - dies} ends, too" in said
  assert "Traceback" not in said
  runs[dies].communicate()

"""Two processes train as one does: same tokens, same parameters, whatever lies on which.

Everything that happens on the host, or before groups are chosen, takes part: rounds are refilled,
responses are cut and verified again, rules are read off them, entropy is measured. The next step's
rollouts are sampled before the update, or started behind it.
"""

import shutil
import signal

import jax
import numpy as np
import pytest

from lcrl.training import loop
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.devices import limit_devices
from tests.helpers.files import lines
from tests.helpers.processes import run_two, start_two, train_in_two
from tests.helpers.rl_runs import changed
from tests.helpers.train_jobs import watched

pytestmark = pytest.mark.slow  # for the runs that they share

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
  checkpoint={"every": 1, "keep": 2},
  mesh={"data": 1, "fsdp": 2},  # rows and parameters are split over the processes
)
PREFETCH = CONFIG | {"train": CONFIG["train"] | {"steps": 3, "steps_ahead": 0}}
WHOLE_ROWS = PREFETCH | {  # both processes hold all rows
  "train": PREFETCH["train"] | {"steps": 1},
  "mesh": {"data": 1, "fsdp": 1, "tensor": 2},
}
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


EXCHANGES = """
import sys
import jax
from lcrl.commands.train import join
from lcrl import hosts
process = int(sys.argv[2])
join(sys.argv[1], 2, process)
for i in range(20):
  assert hosts.gather("number", [process, i]) == [[0, i], [1, i]]
  assert hosts.gather("own", i, [process]) == [i]
assert hosts.gather("word", "ab"[process], [0, 1]) == ["a", "b"]
from jax._src.distributed import global_state
kept = [key for key, _ in global_state.client.key_value_dir_get("lcrl")]
assert len(kept) <= 2 * 2 * 3, kept  # of each name two exchanges, of two values and their list
if process == 0:
  hosts.PATIENCE = 0.5
  try:
    hosts.gather("silence", 0)
  except TimeoutError as error:
    print(error, flush=True)
"""

# The update and the sampling run on one device of each process. Its other device is "the host", on
# which budgets are computed.
BUSY = """
import sys, time
import jax, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from lcrl.commands.train import join
process = int(sys.argv[2])
join(sys.argv[1], 2, process)
apart = jax.devices()[::2]
jax.devices = lambda *_: apart
from lcrl.sampling.engine import make_engine
from lcrl.training.rl import budgets, collect
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.methods import CAP, METHODS, WORDS, Run
from tests.helpers.rl_runs import changed
for module in (budgets, collect):
  module.on_host = lambda: jax.default_device(jax.local_devices()[1])
how = METHODS["l1_exact"] | {"mesh": {"data": 2, "fsdp": 1}}
model = build_learner(read(changed(mesh=how["mesh"])))
engine = make_engine(
  model.policy, max_tokens=CAP, end_ids=WORDS.end_ids, pad_id=WORDS.pad_id, mesh=model.mesh
)
run = Run(engine, **how)
state, queue = run.model.initial(), run.step.queue

@jax.jit
def slowly(params, rounds):
  rows = jax.lax.with_sharding_constraint(
    jnp.ones((2, 256, 256)) / 256, NamedSharding(model.mesh, P("data"))
  )
  busy = jax.lax.fori_loop(0, rounds, lambda _, x: jnp.tanh(x @ x), rows)
  return jax.tree.map(lambda x: x + 0 * busy.sum().astype(x.dtype), params)

for rounds in (1, 500):  # the first compiles
  queue.advance(queue.take(state), state.recipe)
  params = slowly(state.params, rounds)
  queue.prefetch(params)
  pending = not jax.tree.leaves(params)[0].is_ready()
  queue.prefetched.result()
assert pending
"""

WAITING = """
import sys, time
import jax
from lcrl.commands.train import join
from lcrl import hosts
from lcrl.training.peers import watched_peers
process = int(sys.argv[2])
join(sys.argv[1], 2, process)
with watched_peers():
  print("ready", flush=True)
  if process == int(sys.argv[3]):
    hosts.gather("a word that never comes", 0)
  time.sleep(60)
"""


@pytest.fixture(autouse=True)
def two_devices(monkeypatch):
  limit_devices(monkeypatch, 2)


def state(workdir):
  return Checkpoints(workdir / "checkpoints").restore(build_learner(read(CONFIG)).abstract)[1]


def numbers(workdir):
  """What the run measured, without clocks."""
  rows = lines(workdir / "metrics.jsonl")
  timed = lambda name: "time" in name or "per_s" in name
  return [{name: x for name, x in row.items() if not timed(name)} for row in rows]


def responses(workdir):
  """The sampled rows of each step, in the order of the batch."""
  rows = [row for part in sorted((workdir / "samples").iterdir()) for row in lines(part)]
  return [[(r["prompt"], r["response"]) for r in rows if r["step"] == step] for step in (1, 2)]


def train_two(workdir, config):
  module = workdir.parent / "config.py"
  module.write_text(
    "from ml_collections import config_dict\n"
    f"def get_config():\n  return config_dict.ConfigDict({config!r})\n"
  )
  train = [
    "-m",
    "lcrl.commands.train",
    f"--config={module}",
    f"--workdir={workdir}",
    "--processes=2",
  ]
  run_two(lambda address, i: [*train, f"--coordinator={address}", f"--process={i}"])


def same_state(workdir, other, config):
  """Bit for bit: both meshes have two devices, and sums of two numbers do not depend on order."""
  read_state = lambda w: Checkpoints(w / "checkpoints").restore(
    build_learner(read(config)).abstract
  )
  jax.tree.map(np.testing.assert_array_equal, read_state(workdir), read_state(other))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """name -> the folders and records of a run in one process and in two; and a run in two that is
  stopped twice, by a signal to the second process and then by one to both."""
  folder, patch = tmp_path_factory.mktemp("runs"), pytest.MonkeyPatch()
  limit_devices(patch, 2)
  configs = {"ahead": CONFIG, "prefetch": PREFETCH, "whole_rows": WHOLE_ROWS}
  jobs = [{"config": c, "workdir": str(folder / f"two_{name}")} for name, c in configs.items()]
  stopped = {"config": PREFETCH, "workdir": str(folder / "stopped")}
  jobs.append(stopped | {"signal": signal.SIGTERM, "at": [[1, 1]]})
  jobs.append(stopped | {"signal": signal.SIGINT, "at": [[0, 2], [1, 2]]})
  records = zip(*train_in_two(jobs), strict=True)  # by job
  of_two = dict(zip([*configs, "terminated", "interrupted"], records, strict=True))
  found = {"stopped": (folder / "stopped", of_two)}
  for name, config in configs.items():
    with watched() as record:
      loop.train(config, folder / name)
    found[name] = (folder / name, folder / f"two_{name}", record, of_two[name])
  yield found
  patch.undo()


@pytest.mark.parametrize("name, config", [("ahead", CONFIG), ("prefetch", PREFETCH)])
def test_two_processes_train_as_one(runs, name, config):
  one, two, alone, both = runs[name]
  same_state(two, one, config)
  ended, start = state(one), build_learner(read(config)).initial().params
  moved = jax.tree.map(lambda a, b: abs(a - b).max(), start, ended.params)
  assert min(jax.tree.leaves(moved)) > 1e-3
  steps = config["train"]["steps"]
  assert ended.position > steps * 4, "no round was refilled"
  for mine, theirs in zip(responses(two), responses(one), strict=True):
    assert mine[:2] == theirs[:2]  # the first group; each shows two of those that lie there
  assert numbers(two) == numbers(one)
  assert (two / "summary.json").is_file()
  found = [False] + [name == "prefetch"] * (steps - 1)
  assert [record["prefetched"] for record in (alone, *both)] == [found] * 3


def test_each_process_verifies_its_own_rows(runs):
  """Nothing is verified twice, and no process verifies much more than the other."""
  for name in ("ahead", "prefetch", "whole_rows"):
    *_, alone, both = runs[name]
    shares = [record["verified"] for record in both]
    assert sum(shares) == alone["verified"]
    assert max(shares) < 0.6 * sum(shares)
  one, two, *_ = runs["whole_rows"]
  assert numbers(two) == numbers(one)  # of all verdicts, also those of the other process
  assert numbers(one)[1]["outcome/bad_format"] > 4


def test_two_processes_stop_together_and_one_process_goes_on(runs):
  """A signal to one of them stops both after the same step."""
  one, (stopped, of_two) = runs["prefetch"][0], runs["stopped"]
  assert [len(record["prefetched"]) for record in of_two["terminated"]] == [1, 1]
  assert [len(record["prefetched"]) for record in of_two["interrupted"]] == [1, 1]
  loop.train(PREFETCH, stopped)
  same_state(stopped, one, PREFETCH)
  assert numbers(stopped) == numbers(one)


def test_two_processes_go_on_with_what_one_has_sampled_ahead(runs, tmp_path):
  """The rollouts of the second step come from a checkpoint that a single process wrote."""
  one, two = runs["ahead"][0], tmp_path / "two"
  shutil.copytree(one, two)
  shutil.rmtree(two / "checkpoints" / "2")
  assert state(two).pending["rollouts"]["lengths"].shape == (4, 2)
  train_two(two, CONFIG)
  same_state(two, one, CONFIG)
  assert numbers(two) == numbers(one)


def test_rows_lie_where_the_mesh_says():
  run_two(lambda address, i: ["-c", ROWS, address, str(i)])


def test_values_are_exchanged_and_not_kept():
  said = run_two(lambda address, i: ["-c", EXCHANGES, address, str(i)])
  sentence = (
    "process 0 of this run has heard nothing from process 1 about silence within 0.5 seconds"
  )
  assert [sentence in text for text in said] == [True, False]


def test_a_prefetch_waits_for_no_update_of_two_processes():
  run_two(lambda address, i: ["-c", BUSY, address, str(i)], devices=2)


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

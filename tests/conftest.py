"""Eight CPU devices, quick compilation, no silent rank promotion."""

import dataclasses
import functools
import importlib
import itertools
import json
import os
import pathlib
import zlib
from importlib.metadata import version

# Reading a program for CPUs from the cache ended a worker: a segmentation fault in 3 whole runs.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    # An update compiles in a third of the time; later versions have no such flag, and refuse it.
    *["--xla_cpu_use_fusion_emitters=false"] * version("jaxlib").startswith("0.10."),
  ]
)

import jax
import jax.numpy as jnp
import pytest

from tests.helpers.devices import limit_devices

jax.config.update("jax_numpy_rank_promotion", "raise")
# A program of its own. Importing it for doctests would change XLA_FLAGS for processes of tests.
collect_ignore = ["faults"]
MAPS, _TESTS = pathlib.Path("/proc/self/maps"), itertools.count(1)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
  doctest_namespace["jax"] = jax
  doctest_namespace["jnp"] = jnp


@pytest.fixture(autouse=True)
def _verbosity():
  """Commands that tests call set how much absl's logger says."""
  from absl import logging

  before = logging.get_verbosity()
  yield
  logging.set_verbosity(before)


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module(request):
  """Programs are freed after each module. Late in two whole runs, with thousands of them, jaxlib
  ended a worker as it loaded one more: a segmentation fault."""
  yield
  if request.node.path.name.endswith("_test.py"):
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _programs_of_many_tests():
  """And within a module: Linux allows a process 65,530 regions of memory, and every program takes
  several."""
  yield
  if next(_TESTS) % 8 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > 30_000:
    jax.clear_caches()


@pytest.fixture(scope="module")
def one_device():
  """`jax.devices` gives one device to the tests of a module."""
  with pytest.MonkeyPatch.context() as patch:
    limit_devices(patch)
    yield


# Names of test files that look at pictures of runs.
LOOK = {"answers", "benchmarks", "compare", "demo", "effort_curve", "evaluate", "evaluation_report"}
LOOK |= {"pairs_run", "plot_labels", "study_preference", "study_testbed"}


@pytest.fixture(autouse=True, scope="module")
def _no_pictures(request):
  """A run ends with pictures, which take a second: elsewhere they are built, but not drawn."""
  from matplotlib.figure import Figure

  with pytest.MonkeyPatch.context() as patch:
    if request.node.path.stem.removesuffix("_test") not in LOOK:
      patch.setattr(Figure, "draw_without_rendering", lambda _: None)
      patch.setattr(Figure, "savefig", lambda _, path, **__: pathlib.Path(path).touch())
    yield


def pytest_collection_modifyitems(config, items):
  """`SLOW=1/8` takes the second eighth of the slow tests, by their names, beside all others. A
  module that is slow as a whole, for what its tests share, stays together."""
  part, parts = map(int, os.environ.get("SLOW", "0/1").split("/"))

  def kept(item):
    if not item.get_closest_marker("slow"):
      return True
    module = item.getparent(pytest.Module)
    together = module is not None and module.get_closest_marker("slow")
    name = module.nodeid if together else item.nodeid
    return zlib.crc32(name.encode()) % parts == part

  config.hook.pytest_deselected(items=[item for item in items if not kept(item)])
  items[:] = filter(kept, items)


# Fixtures of more than one file. They import what they need when they are asked for, since conftest
# is read before every test, in environments that have not all of it.


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory, one_device):
  """The folder of a small RL run that has ended."""
  from lcrl.training import loop
  from tests.helpers.rl_runs import CONFIG

  workdir = tmp_path_factory.mktemp("whole")
  loop.train(CONFIG, workdir)
  return workdir


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  """Prompts that ask for a letter; the chosen answer is that letter, the rejected one drags."""
  path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
  letters = [chr(ord("a") + i % 26) * (1 + i // 26) for i in range(40)]
  lines = [{"prompt": f"say {x}", "chosen": x, "rejected": "well " * 2 + x} for x in letters]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  return str(path)


@pytest.fixture(scope="module")
def engine(one_device):
  """One for all methods, so that it is compiled once; and problems are made once."""
  from lcrl.sampling.engine import make_engine
  from lcrl.training.rl.learner import build_learner
  from lcrl.training.rl.settings import read
  from tests.helpers.methods import CAP, WORDS
  from tests.helpers.rl_runs import CONFIG

  patch = pytest.MonkeyPatch()
  arithmetic = importlib.import_module("lcrl.tasks.arithmetic")
  patch.setattr(arithmetic, "_Prompts", functools.cache(arithmetic._Prompts))
  model = build_learner(read(CONFIG))
  yield make_engine(
    model.policy, max_tokens=CAP, end_ids=WORDS.end_ids, pad_id=WORDS.pad_id, mesh=model.mesh
  )
  patch.undo()


@pytest.fixture
def bench(monkeypatch, capsys):
  """Runs a benchmark with these flags, defaults elsewhere; gives its lines of JSON."""
  from absl import flags

  from experiments.benchmarks import shapes

  small = dataclasses.replace(
    shapes.LAPTOP, vocab_size=64, hidden_size=16, layers=1, heads=2, kv_heads=1, head_dim=8
  )
  monkeypatch.setattr(shapes, "LAPTOP", dataclasses.replace(small, mlp_size=16))
  limit_devices(monkeypatch)

  def run(name, **given):
    program, before = importlib.import_module(f"experiments.benchmarks.{name}"), set(flags.FLAGS)
    program.define()
    try:
      flags.FLAGS(["benchmark", *(f"--{flag}={value}" for flag, value in given.items())])
      program.main([])
    finally:
      for flag in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, flag)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

  return run

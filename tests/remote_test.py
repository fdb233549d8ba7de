"""A run on an object store survives what a run on a disk does, and leaves the same files."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lcrl.commands import command, compare, evaluate, export, sweep
from lcrl.training import lock, loop, remote
from lcrl.training.checkpoint import CheckpointError, Checkpoints, verify
from tests.helpers import evaluate_flags, stores
from tests.helpers.rl_runs import changed, final_state

pytestmark = pytest.mark.usefixtures("one_device")
REPOSITORY = Path(__file__).parent.parent
CONFIG = changed(train__steps=3, checkpoint={"every": 1, "keep": 2}, eval__prompts=2)
URL = "gs://bucket/runs/a"
STATE = {"w": jnp.arange(4000, dtype=jnp.float32), "n": jnp.int32(3), "none": None}
STOPS_IN_STEP_3 = """
  import json, sys, time
  from lcrl.training import loop
  from lcrl.training.workdir import Workdir
  from tests.helpers import stores

  stores.register()
  learned = Workdir.learned

  def learn(self, step, *args):
    learned(self, step, *args)
    if step == 3:
      print("in step 3", flush=True)
      time.sleep(600)

  Workdir.learned = learn
  loop.train(json.loads(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
  root = tmp_path / "store"
  root.mkdir()
  with stores.serve(root, monkeypatch):
    yield root


@pytest.fixture
def programs(tmp_path, monkeypatch):
  """A cache of programs, for this process and its children: all runs of a test have the same."""
  options = {"compilation_cache_dir": str(tmp_path / "programs")}
  options |= {"persistent_cache_min_compile_time_secs": 0}
  before = {name: getattr(jax.config, f"jax_{name}") for name in options}
  for name, value in options.items():
    jax.config.update(f"jax_{name}", value)
    monkeypatch.setenv(f"JAX_{name.upper()}", str(value))
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(f"jax_{name}", value)
  compilation_cache.reset_cache()


def abstract(state):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_checkpoint_on_a_store_is_verified(store, scheme, caplog):
  """gs:// is written by TensorStore, s3:// by way of a disk."""
  checkpoints = Checkpoints(f"{scheme}://bucket/runs/a/checkpoints", about={"data": "abc"})
  for step in (1, 2, 3):
    checkpoints.save(step, STATE | {"n": jnp.int32(step)})
  checkpoints.wait()
  assert (checkpoints.steps(), checkpoints.about()) == ([2, 3], {"data": "abc"})
  step, state = checkpoints.restore(abstract(STATE))
  assert (step, state["n"]) == (3, 3)
  np.testing.assert_array_equal(state["w"], STATE["w"])
  key = max(stores.keys("bucket/runs/a/checkpoints/3/state"), key=lambda k: stores.size(k))
  content = bytearray(stores.file_of(key).read_bytes())
  content[len(content) // 2] ^= 1
  stores.write(key, bytes(content))
  assert checkpoints.restore(abstract(STATE))[0] == 2
  assert f"{scheme}://{key} differs from its manifest" in caplog.text
  stores.file_of("bucket/runs/a/checkpoints/2/manifest.0.json").unlink()
  assert "lacks a manifest" in verify(remote.parse(f"{scheme}://bucket/runs/a/checkpoints/2"))
  with pytest.raises(CheckpointError, match="no valid checkpoint in"):
    checkpoints.restore(abstract(STATE))
  checkpoints.close()


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(
  store, programs, tmp_path, monkeypatch, capsys
):
  child = subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(STOPS_IN_STEP_3), json.dumps(CONFIG), URL],
    cwd=REPOSITORY,
    env={**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", "count=1")},
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert child.stdout.readline() == "in step 3\n"
    while json.loads(stores.read("bucket/runs/a/saved.json") or b'{"step": 0}')["step"] < 2:
      assert child.poll() is None
  finally:
    child.kill()
    child.communicate()
  summary = loop.train(CONFIG, URL, method="here")
  assert "going on from step 2 of 3" in capsys.readouterr().err
  whole = tmp_path / "whole"
  assert loop.train(CONFIG, whole, method="here")["accuracy"] == summary["accuracy"]

  back = remote.opened(URL)
  told = {str(p.relative_to(back)) for p in back.rglob("*") if p.is_file()}
  wanted = {str(p.relative_to(whole)) for p in whole.rglob("*") if p.is_file()}
  events = lambda names: {name for name in names if name.startswith("events/")}
  assert len(events(told)) == 2  # one of each start
  on_disk = {name for name in wanted if not name.startswith(("checkpoints/", ".lock"))}
  assert told - events(told) == on_disk - events(on_disk)
  for name in ("metrics.jsonl", "evaluations.jsonl", "samples/00000001.jsonl"):
    assert timeless(back / name) == timeless(whole / name), name
  a, b = (final_state(folder, CONFIG) for folder in (back, whole))
  jax.tree.map(np.testing.assert_array_equal, a.params, b.params)
  assert not stores.keys("bucket/runs/a/.lock")

  out = "gs://bucket/comparison"
  monkeypatch.setattr(compare, "FLAGS", types.SimpleNamespace(out=out, baseline=None))
  compare.main(["compare", URL, str(whole)])
  assert b"gs/bucket/runs/a * |" in stores.read("bucket/comparison/comparison.md")
  given = {"workdir": URL, "budgets": ["4"], "samples": 1, "prompts": 2, "batch": 2, "out": None}
  monkeypatch.setattr(evaluate, "FLAGS", evaluate_flags.flags(**given))
  evaluate.main(None)
  found = json.loads(stores.read("bucket/runs/a/evaluation.json"))
  assert (found["model"], found["step"], found["method"]) == (URL, 3, "a")
  assert export.export(remote.opened(URL), tmp_path / "exported") == 3

  with pytest.raises(ValueError, match=f"{URL} holds a run of another config"):
    loop.train(CONFIG | {"seed": 4}, URL)
  for key in stores.keys("bucket/runs/a/checkpoints/"):
    stores.file_of(key).unlink()
  with pytest.raises(ValueError, match=f"{URL} holds a run that saved a checkpoint at step 3"):
    loop.train(CONFIG, URL)


def test_a_store_out_of_reach_is_an_error_of_the_next_save(store, monkeypatch):
  checkpoints = Checkpoints(f"{URL}/checkpoints")

  def unreachable(*_, **__):
    raise RuntimeError("no route to host")

  monkeypatch.setattr(stores.Store, "open", unreachable)
  monkeypatch.setattr(stores.Store, "ls", unreachable)
  checkpoints.save(1, STATE)
  with pytest.raises(CheckpointError, match=r"step 1; older ones cannot be listed .*no route"):
    checkpoints.wait()


def timeless(path):
  is_timed = lambda name: "time" in name or "per_s" in name or name == "wall_s"
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  return [{name: x for name, x in row.items() if not is_timed(name)} for row in rows]


def test_only_what_changed_is_uploaded(store, tmp_path):
  folder = remote.opened("gs://bucket/b")
  folder.mkdir(parents=True)
  (folder / "a.jsonl").write_text("1\n")
  (folder / "still").write_text("")
  remote.publish(folder)
  stores.file_of("bucket/b/still").unlink()
  with (folder / "a.jsonl").open("a") as file:
    file.write("2\n")
  remote.publish(folder)
  assert stores.keys() == ["bucket/b/a.jsonl"]
  assert stores.read("bucket/b/a.jsonl") == b"1\n2\n"
  remote.publish(tmp_path)  # a folder of a disk: nothing to do
  assert (remote.opened(tmp_path), remote.origin(tmp_path)) == (tmp_path, tmp_path)


def test_a_sweep_has_its_folders_on_the_store(store):
  trained = []

  def train(config, workdir, method):
    trained.append(os.fspath(workdir))
    return {"stopped": None}

  experiment = command.Experiment("configs/laser.py:smoke")
  sweep.run(experiment, remote.parse("gs://bucket/sweep"), train)
  assert trained == [f"gs://bucket/sweep/{name}" for name in sweep.settings(experiment)]
  assert (
    f"--workdir={trained[0]}" in sweep.commands(experiment, remote.parse("gs://bucket/sweep"))[0]
  )


@pytest.fixture
def quick(monkeypatch):
  monkeypatch.setattr(lock, "BEAT", 0.1)


def test_a_store_is_used_by_one_run(store, quick):
  folder = remote.opened(URL)
  with (
    lock.locked(folder),
    pytest.raises(ValueError, match=rf"{URL} is in use by another run, process {os.getpid()} on"),
    lock.locked(folder),
  ):
    pass
  assert stores.keys() == []


@pytest.mark.parametrize("change", [{}, {"host": "another"}, {"pid": None}])
def test_the_lease_of_a_dead_run_is_taken_over(store, quick, change, caplog):
  """At once if its process was one of this machine, else after some beats without a renewal."""
  dead = subprocess.run(
    [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True
  )
  lease = {
    "owner": "a dead run",
    "host": lock._host(),
    "pid": int(dead.stdout),
    "key": "x",
  } | change
  stores.write("bucket/runs/a/.lock", json.dumps(lease).encode())
  with lock.locked(remote.opened(URL)):
    assert b"a dead run" not in stores.read("bucket/runs/a/.lock")
  assert ("tell whether it lives" in caplog.text) == bool(change)


def test_a_run_ends_when_another_has_taken_its_lease(store, quick, monkeypatch, capsys):
  ended = []
  monkeypatch.setattr(lock.os, "_exit", lambda code: ended.append(code) or time.sleep(1e9))
  with lock.locked(remote.opened(URL)):
    stores.write("bucket/runs/a/.lock", json.dumps({"owner": "another", "key": "y"}).encode())
    end = time.monotonic() + 30
    while not ended and time.monotonic() < end:
      time.sleep(0.01)
    monkeypatch.setattr(threading.Thread, "join", lambda *_: None)  # of a process that has ended
  assert ended == [1]
  assert f"{URL} was taken over by another, so this run ends." in capsys.readouterr().err
  assert json.loads(stores.read("bucket/runs/a/.lock"))["owner"] == "another"


@pytest.mark.parametrize(
  ("name", "said"),
  [
    ("gs://bucket/a", "gs:// needs the packages fsspec and gcsfs: pip install fsspec gcsfs"),
    ("az://bucket/a", "az:// needs the packages fsspec and adlfs"),
    ("ftp://bucket/a", "there is no scheme ftp://, only local paths and gs://, s3://"),
  ],
)
def test_a_store_without_its_package_is_refused(name, said, monkeypatch):
  import fsspec

  known = fsspec.get_filesystem_class

  def missing(protocol):
    if protocol in ("gcs", "az"):
      raise ImportError(protocol)
    return known(protocol)

  monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
  with pytest.raises(ValueError) as error:
    loop.train(CONFIG, name)
  assert said in str(error.value)


def test_several_processes_need_a_store_that_all_can_write(store, monkeypatch):
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(ValueError, match="several processes save to a folder that they share"):
    Checkpoints("s3://bucket/a")

"""What is saved comes back bit for bit, and damage is found before it is loaded."""

import json
import random
import subprocess
import sys
import textwrap
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl.mesh import make_mesh
from lcrl.training import host_copy
from lcrl.training.checkpoint import CheckpointError, Checkpoints, verify
from lcrl.training.manifest import FORMAT

STATE = {"w": jnp.arange(4000, dtype=jnp.float32), "n": jnp.int32(3), "none": None}


def abstract(state):
  sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), state)


@pytest.fixture
def saved(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2)
  for step in (1, 2):
    checkpoints.save(step, {**STATE, "n": jnp.int32(step)})
  checkpoints.wait()
  yield checkpoints
  checkpoints.close()


def damage(folder, step):
  files = [p for p in (folder / str(step) / "state").rglob("*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(data)
  return largest


def test_newest_comes_back_whole(saved):
  step, state = saved.restore(abstract(STATE))
  assert step == 2
  assert state["n"] == 2
  np.testing.assert_array_equal(state["w"], STATE["w"])
  assert state["none"] is None


def test_nothing_to_restore(tmp_path):
  assert Checkpoints(tmp_path / "absent").restore(abstract(STATE)) is None


def test_one_flipped_bit_is_found_and_the_older_one_taken(saved, tmp_path, caplog):
  file = damage(tmp_path, 2)
  assert saved.restore(abstract(STATE))[0] == 1
  assert str(file) in caplog.text
  with pytest.raises(CheckpointError, match=rf"{file.name} .* Others that were saved: 1\."):
    saved.restore(abstract(STATE), step=2)


def test_processes_share_the_files_that_they_verify(saved, tmp_path):
  file = damage(tmp_path, 2)
  faults = [verify(tmp_path / "2", (i, 3)) for i in range(3)]
  assert [fault for fault in faults if fault] == [f"{file} differs from its manifest"]


def test_all_damaged_is_an_error_not_a_fresh_start(saved, tmp_path):
  damage(tmp_path, 1)
  damage(tmp_path, 2)
  with pytest.raises(CheckpointError, match="no valid checkpoint"):
    saved.restore(abstract(STATE))


def test_cut_off_saving_is_not_a_checkpoint(saved, tmp_path):
  (tmp_path / "2" / "manifest.0.json").unlink()
  assert saved.steps() == [1]
  assert "lacks a manifest" in verify(tmp_path / "2")


def manifest(folder, step):
  return folder / str(step) / "manifest.0.json"


@pytest.mark.parametrize(
  "content",
  [
    b"",
    b'{"format": 7, "processes": 1, "fi',
    b"[" * 100_000,
    b"\xff\xfe",
    b"null",
    b"[1]",
    b'{"processes": 1}',
    b'{"processes": 1, "files": 3}',
    b'{"processes": 1, "files": {"state/x": 3}}',
    b'{"processes": [1], "files": {}}',
    b'{"processes": 1e999, "files": {}}',
    b'{"format": "7", "processes": 1, "files": {}}',
    b'{"format": 2, "processes": 1, "files": {}}',
  ],
)
def test_a_damaged_manifest_is_said_and_the_older_one_taken(saved, tmp_path, caplog, content):
  manifest(tmp_path, 2).write_bytes(content)
  assert saved.restore(abstract(STATE))[0] == 1
  assert str(manifest(tmp_path, 2)) in caplog.text
  manifest(tmp_path, 1).write_bytes(content)
  with pytest.raises(CheckpointError, match="no valid checkpoint"):
    saved.restore(abstract(STATE))


def test_no_flipped_bit_of_a_manifest_is_taken_for_another_checkpoint(saved, tmp_path):
  whole, chance = manifest(tmp_path, 2).read_bytes(), random.Random(0)
  place = whole.index(b'"format": ') + len(b'"format": ')
  bits = [8 * place + i for i in range(8)]
  for bit in bits + chance.sample(range(8 * len(whole)), 200):
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    manifest(tmp_path, 2).write_bytes(flipped)
    fault = verify(tmp_path / "2")  # raises for a newer format
    assert fault is not None or json.loads(flipped)["files"] == json.loads(whole)["files"]


def test_a_newer_format_is_refused_by_name(saved, tmp_path):
  found = json.loads(manifest(tmp_path, 2).read_text())
  manifest(tmp_path, 2).write_text(json.dumps(found | {"format": FORMAT + 1}))
  with pytest.raises(CheckpointError, match=f"2 has format 8, and this version .* up to {FORMAT}"):
    saved.restore(abstract(STATE))


def test_a_manifest_without_a_format_is_one_of_the_first(saved, tmp_path):
  found = json.loads(manifest(tmp_path, 2).read_text())
  del found["format"]
  manifest(tmp_path, 2).write_text(json.dumps(found))
  assert saved.restore(abstract(STATE))[0] == 2


def test_one_that_was_cut_off_is_mentioned(saved, tmp_path, caplog):
  manifest(tmp_path, 2).unlink()
  assert saved.restore(abstract(STATE))[0] == 1
  assert "checkpoint 2 is not valid" in caplog.text


def test_going_back_behind_a_damaged_one_leaves_a_valid_one_at_any_time(saved, tmp_path):
  """Pruning that counts the damaged newest one would remove the last that is valid."""
  checkpoints = Checkpoints(tmp_path, keep=1)
  damage(tmp_path, 2)
  assert checkpoints.restore(abstract(STATE))[0] == 1
  checkpoints.save(1, STATE)
  checkpoints.wait()
  assert [p.name for p in tmp_path.iterdir()] == ["1"]
  assert checkpoints.restore(abstract(STATE))[0] == 1


def test_what_is_left_over_is_swept(saved, tmp_path):
  (tmp_path / "7" / "state.tmp").mkdir(parents=True)
  (tmp_path / "notes").mkdir()
  saved.sweep(1)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "notes"]


def test_what_is_no_folder_is_not_in_the_way(saved, tmp_path):
  (tmp_path / "2" / "manifest.1.json").mkdir()
  (tmp_path / "3").write_text("")
  (tmp_path / "4").symlink_to("nowhere")
  saved.sweep(saved.restore(abstract(STATE))[0])
  assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_other_shapes_are_named(saved):
  other = STATE | {"w": jnp.zeros((4, 10), jnp.bfloat16), "extra": jnp.zeros(2)}
  with pytest.raises(CheckpointError) as error:
    saved.restore(abstract(other))
  said = str(error.value)
  assert "w is float32[4000] in the checkpoint and bfloat16[4, 10] here" in said
  assert "extra is absent in the checkpoint and float32[2] here" in said


def test_what_it_was_saved_from_is_kept_and_vouched_for(tmp_path):
  done = []
  checkpoints = Checkpoints(tmp_path, about={"data": "abc"}, saved=done.append)
  checkpoints.save(3, STATE)
  checkpoints.wait()
  assert (checkpoints.about(), done) == ({"data": "abc"}, [3])
  (tmp_path / "3" / "about.json").write_text('{"data": "abd"}')
  assert "about.json differs from its manifest" in verify(tmp_path / "3")


def test_only_the_newest_are_kept(saved, tmp_path):
  saved.save(3, STATE)
  saved.wait()
  assert saved.steps() == [2, 3]


def test_what_is_donated_after_a_save_is_saved_as_it_was(tmp_path):
  """`save` waits for no byte, and the next step may write where the state was."""
  checkpoints = Checkpoints(tmp_path)
  may_write, save = threading.Event(), checkpoints._saver.save

  def saving(*args, **options):
    assert may_write.wait(60)
    save(*args, **options)

  checkpoints._saver.save = saving
  state = {"w": jax.device_put(jnp.arange(1 << 20, dtype=jnp.float32), jax.devices()[0])}
  place = state["w"].unsafe_buffer_pointer()
  checkpoints.save(1, state)
  zeroed = jax.jit(lambda w: w * 0, donate_argnums=0)(state.pop("w"))
  assert zeroed.unsafe_buffer_pointer() == place
  assert checkpoints.steps() == []
  may_write.set()
  checkpoints.wait()
  restored = checkpoints.restore(abstract({"w": zeroed}))[1]
  np.testing.assert_array_equal(restored["w"], np.arange(1 << 20, dtype=np.float32))


def test_without_pinned_memory_a_save_waits_for_its_copies(tmp_path, monkeypatch):
  monkeypatch.setenv(host_copy.POOL, "0")
  checkpoints = Checkpoints(tmp_path)
  threads, save = [], checkpoints._saver.save

  def saving(*args, **options):
    threads.append(threading.current_thread())
    save(*args, **options)

  checkpoints._saver.save = saving
  checkpoints.save(1, STATE)
  checkpoints.wait()
  assert threads == [threading.current_thread()]
  np.testing.assert_array_equal(checkpoints.restore(abstract(STATE))[1]["w"], STATE["w"])


def test_the_host_holds_what_devices_replicate_once():
  mesh = make_mesh(data=4, fsdp=2)
  put = lambda x, *spec: jax.device_put(x, NamedSharding(mesh, P(*spec)))
  state = {
    "replicated": put(np.arange(64.0).reshape(4, 16)),
    "halved": put(np.arange(96.0).reshape(12, 8), None, "fsdp"),
    "indivisible": put(np.arange(3.0)),
    "scalar": put(np.float32(7)),
  }
  copy = host_copy.pin(spread := host_copy.spread(state))
  assert [name for name, x in state.items() if spread[name] is x] == ["indivisible", "scalar"]
  held = {name: sum(s.data.size for s in x.addressable_shards) for name, x in copy.items()}
  assert held == {"replicated": 64, "halved": 96, "indivisible": 3 * 8, "scalar": 8}
  for name, x in copy.items():
    assert x.sharding.memory_kind == "pinned_host"
    np.testing.assert_array_equal(x, state[name])


def test_a_sharded_state_comes_back_on_another_mesh(tmp_path):
  rows = np.arange(96, dtype=np.float32).reshape(12, 8)
  on = lambda mesh, *spec: jax.device_put(rows, NamedSharding(mesh, P(*spec)))
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(1, {"w": on(make_mesh(data=4, fsdp=2), "fsdp")})
  checkpoints.wait()
  other = on(make_mesh(data=2, fsdp=4), None, "fsdp")
  like = {"w": jax.ShapeDtypeStruct(other.shape, other.dtype, sharding=other.sharding)}
  restored = checkpoints.restore(like)[1]["w"]
  assert restored.sharding == other.sharding
  np.testing.assert_array_equal(restored, rows)


FULL_DISK = """
    import resource, sys, jax.numpy as jnp
    from lcrl.training.checkpoint import CheckpointError, Checkpoints
    checkpoints = Checkpoints(sys.argv[1])
    checkpoints.save(1, {"w": jnp.zeros(10)})
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    noise = jnp.arange(1_000_000, dtype=jnp.uint32) * jnp.uint32(2654435761)
    try:
      checkpoints.save(2, {"w": noise})
      checkpoints.wait()
    except CheckpointError as error:
      print("refused:", error)
    print("steps", checkpoints.steps())
"""


def test_a_full_disk_loses_nothing(tmp_path):
  run = subprocess.run(
    [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)],
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert "refused: could not save the checkpoint of step 2; step 1 is still there" in run.stdout, (
    run.stdout + run.stderr
  )
  assert "steps [1]" in run.stdout
  assert not (tmp_path / "2").exists()

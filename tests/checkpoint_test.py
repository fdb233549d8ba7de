"""What is saved comes back bit for bit, and damage is found before it is loaded."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.training.checkpoint import CheckpointError, Checkpoints, verify

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
  with pytest.raises(CheckpointError, match=file.name):
    saved.restore(abstract(STATE), step=2)


def test_all_damaged_is_an_error_not_a_fresh_start(saved, tmp_path):
  damage(tmp_path, 1)
  damage(tmp_path, 2)
  with pytest.raises(CheckpointError, match="no valid checkpoint"):
    saved.restore(abstract(STATE))


def test_cut_off_saving_is_not_a_checkpoint(saved, tmp_path):
  (tmp_path / "2" / "manifest.0.json").unlink()
  assert saved.steps() == [1]
  assert "lacks a manifest" in verify(tmp_path / "2")


def test_only_the_newest_are_kept(saved, tmp_path):
  saved.save(3, STATE)
  saved.wait()
  assert saved.steps() == [2, 3]


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

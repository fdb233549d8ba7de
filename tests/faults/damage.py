"""Damage to checkpoints, and what else is done to a run before it begins."""

from __future__ import annotations

import os
import pathlib
import random
import resource
import shutil

from lcrl.training.checkpoint import CheckpointError, Checkpoints
from lcrl.training.rl import run as rl
from tests.faults.trials import STEPS


def one_fault(place: pathlib.Path, what: str, chance: random.Random) -> None:
  """In one file of a checkpoint: any bit of all its bytes, or any file that is not empty."""
  files = sorted(p for p in place.rglob("*") if p.is_file() and p.stat().st_size)
  file = chance.choices(
    files, [p.stat().st_size for p in files] if what == "flipped bit" else None
  )[0]
  data = bytearray(file.read_bytes())
  if what == "deletion":
    file.unlink()
    return
  at = chance.randrange(len(data))
  if what == "truncation":
    del data[at:]
  else:
    data[at] ^= 1 << chance.randrange(8)
  file.write_bytes(data)


def harmed(
  whole: pathlib.Path, place: pathlib.Path, what: str, times: int, chance: random.Random
) -> list[str]:
  """What was lost when one fault after another was in the newest checkpoint of a run. Right is that
  the older one is restored, or the newest where it is as it was, as after a flipped space."""
  lost = []
  for trial in range(times):
    shutil.copytree(whole / "checkpoints", place)
    one_fault(place / str(STEPS), what, chance)
    try:
      step, state = _restored(place)
      if any(
        (state[name] != value).any()
        for name, value in _restored(whole / "checkpoints", step)[1].items()
      ):
        lost.append(f"{what} {trial}: step {step} came back with another state")
    except CheckpointError as error:
      lost.append(f"{what} {trial}: {error}")
    shutil.rmtree(place)
  return lost


def both_harmed(
  whole: pathlib.Path, place: pathlib.Path, times: int, chance: random.Random
) -> list[str]:
  lost = []
  for trial in range(times):
    shutil.copytree(whole / "checkpoints", place)
    for step in (STEPS - 1, STEPS):
      one_fault(place / str(step), chance.choice(["truncation", "deletion"]), chance)
    try:
      restored = _restored(place)
      lost.append(f"both {trial}: step {restored[0]} came back")
    except CheckpointError:
      pass
    shutil.rmtree(place)
  return lost


def _restored(folder: pathlib.Path, step: int | None = None):
  """(step, name -> array), in a process of its own, since this one is not to compute."""
  import multiprocessing

  with multiprocessing.get_context("fork").Pool(1) as pool:
    return pool.apply(_restore, (folder, step))


def _restore(folder: pathlib.Path, step: int | None):
  import jax
  import numpy as np

  from lcrl.training.rl.learner import build_learner
  from lcrl.training.rl.settings import read
  from tests.faults import trials

  abstract = build_learner(read(trials.configs(pathlib.Path(os.devnull))["rl"])).abstract
  step, state = Checkpoints(folder).restore(abstract, step)
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return step, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def full_disk() -> None:
  """A hook: from the second checkpoint on, no file grows past some kilobytes."""
  save, saves = Checkpoints.save, []

  def saving(self, step, state):
    saves.append(step)
    if len(saves) > 1:
      self.wait()
      resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    save(self, step, state)

  Checkpoints.save = saving


def nobody() -> None:
  """A hook: even if this is the administrator, it may write only where all may."""
  if os.geteuid() == 0:
    os.setegid(65534)
    os.seteuid(65534)


def endless_step() -> None:
  """A hook: the devices never finish the second step, and Python waits inside of JAX."""
  import jax
  import jax.numpy as jnp

  update = rl.update

  def never(model, state, *rest):
    if int(state.step) == 1:
      endless = lambda x: jax.lax.while_loop(lambda _: True, jnp.sin, x)  # an empty loop is removed
      jax.block_until_ready(jax.jit(endless)(1.0))
    return update(model, state, *rest)

  rl.update = never

"""Runs the settings that a config's `sweep(add)` declares, each in a folder named after it."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from lcrl.commands import command
from lcrl.commands.modes import variant_of
from lcrl.evaluation import read_json
from lcrl.evaluation.progress import to_stderr
from lcrl.training import kinds
from lcrl.training.remote import AnyPath, opened
from lcrl.training.workdir import read_config

LONGEST = 200  # bytes of a folder's name, of the 255 that most file systems take
Train = Callable[..., dict[str, Any]]  # `lcrl.training.loop.train`


def points(module: ModuleType, variant: str) -> list[dict[str, Any]]:
  """The settings that a config's `sweep` declares: field -> value."""
  settings: list[dict[str, Any]] = []
  if hasattr(module, "VARIANTS"):
    module.sweep(settings.append, variant)
  elif hasattr(module, "sweep"):
    module.sweep(settings.append)
  return settings


def settings(experiment: command.Experiment) -> dict[str, command.Experiment]:
  """Name of a setting, such as "reward.alpha=0.5" -> the experiment with its overrides.

  Raises:
    ValueError: the config declares no sweep, or gives two settings one name.
  """
  module, mode = command.load(experiment.path)
  variants = getattr(module, "VARIANTS", ())
  named = {}
  declared = points(module, variant_of(mode or "full", variants) if variants else "")
  for point in declared:
    texts = {k: v if isinstance(v, str) else repr(v) for k, v in point.items()}
    name = short(re.sub(r"[^\w.,=+-]", "", "+".join(f"{k}={x}" for k, x in texts.items())))
    overrides = (*experiment.overrides, *texts.items())
    named[name] = dataclasses.replace(experiment, overrides=overrides)
  if not named:
    raise ValueError(f"--config={experiment.path} declares no sweep.")
  if len(named) < len(declared):
    raise ValueError(f"--config={experiment.path}: two settings of its sweep have the same name.")
  return named


def short(name: str) -> str:
  """The name, with a checksum for what no file system takes in one folder's name.

  >>> len(short("x" * 300)), short("reward.alpha=0.5")
  (200, 'reward.alpha=0.5')
  """
  if len(name.encode()) <= LONGEST:
    return name
  return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}-{zlib.crc32(name.encode()):08x}"


def commands(experiment: command.Experiment, workdir: AnyPath) -> list[str]:
  """A command for each setting, with the same effect as the sweep."""
  return [
    shlex.join(
      [
        *("lcrl-train", f"--config={one.path}"),
        *(f"--config.{field}={text}" for field, text in one.overrides),
        f"--workdir={workdir / name}",
      ]
    )
    for name, one in settings(experiment).items()
  ]


def run(experiment: command.Experiment, workdir: AnyPath, train: Train) -> None:
  """Trains one setting after the other. Finished runs are skipped, an interrupted one continues.

  A smoke run is too small for some values: those settings are skipped with a message.

  Raises:
    ValueError: one of the configs is invalid; nothing runs.
  """
  configs = {name: one.to_dict() for name, one in settings(experiment).items()}
  smoke = "smoke" in (command.load(experiment.path)[1] or "").split(",")
  for config in configs.values() if not smoke else [experiment.to_dict()]:
    kinds.kind(config).settings(config)
  for number, (name, config) in enumerate(configs.items(), 1):
    title = f"setting {number} of {len(configs)}, {name}"
    if _from_first_process(finished(opened(workdir / name), config)):
      _say(f"{title}: finished before")
      continue
    _say(f"{title}: training in {workdir / name}")
    try:
      summary = train(config, workdir / name, method=f"{experiment.name}, {name}")
    except ValueError as error:
      if not smoke:
        raise
      _say(f"{title}: left out, the smoke mode does not allow it: {error}")
      continue
    if _from_first_process(summary.get("stopped") is not None):
      _say("The sweep was stopped; the same command continues it.")
      return
  _say(f"The sweep is finished: lcrl-compare {workdir}/*")


def finished(folder: Path, config: dict[str, Any]) -> bool:
  """Whether the folder holds a completed run of exactly this config."""
  if not (folder / "summary.json").exists():
    return False
  same = read_config(folder) == json.loads(json.dumps(config))
  return same and read_json(folder / "summary.json").get("stopped") is None


def _from_first_process(value: bool) -> bool:
  """The first process's value: only it has a summary, and all processes must decide alike."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def _say(text: str) -> None:
  if jax.process_index() == 0:
    to_stderr(text)

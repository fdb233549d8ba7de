"""What to change in a config whose run does not fit its devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from lcrl.mesh import batch_shards
from lcrl.training.analysis.arithmetic import MARGIN, Described, Memory, packed_width
from lcrl.training.analysis.roofline import GIB, Chip

NOTHING: dict[str, Any] = {}


class Advice(NamedTuple):
  """What makes a program smaller: fields of the config, or in words what else would."""

  program: str
  peak: float  # bytes
  fields: dict[str, Any]
  words: str = ""

  def __str__(self) -> str:
    said = ", ".join(f"{name}={value!r}" for name, value in self.fields.items())
    return f"{self.program}: {self.peak / GIB:.1f} GiB: {said or self.words}"


def advice(run: Described, chip: Chip, programs: Mapping[str, Mapping[str, Any]]) -> list[Advice]:
  """What to change for the state and for each program that is too large.

  Args:
    run: the run, described.
    chip: one device.
    programs: name -> bytes of `Program` and "peak", as compiled or calculated.
  """
  most, found, memory = (1 - MARGIN) * chip.memory, list[Advice](), Memory(run)
  if (held := memory.state + memory.reference) > 0.7 * most:
    found.append(Advice("parameters and optimizer", held, NOTHING, _smaller_state(run)))
  for name, program in programs.items():
    if program["peak"] > most:
      change = _sampling if name == "sample" else _copy if name == "copy" else _pass
      free = most - program["peak"] + program["temporaries"]
      found.append(Advice(name, program["peak"], *change(run, memory, name, free)))
  if any("train.micro_tokens" in one.fields for one in found):  # they exclude each other
    found = [one for one in found if one.fields.get("train.micro_batches", 1) == 1]
  return found


def _smaller_state(run: Described) -> str:
  more = "more devices with mesh.fsdp=-1"
  if run.settings.lora is not None:
    return f"{more}, or policy.param_dtype='bfloat16'"
  return (
    f"{more}, optimizer.moments='bfloat16', or a section lora with policy.param_dtype='bfloat16'"
  )


def _copy(run: Described, memory: Memory, name: str, free: float):
  return _wider(run, f"the sampler's copy of the parameters takes {memory.copy / GIB:.1f} GiB")


def _sampling(run: Described, memory: Memory, name: str, free: float):
  rest = memory.prompts + memory.logits + memory.rows
  slots = int((free - rest) // memory.row)
  group = getattr(run.settings.train, "group_size", 1)
  shards = batch_shards(run.mesh)
  if run.settings.run not in ("rl", "iterative") and run.settings.train.prompts > shards:
    return {"train.prompts": shards}, ""  # only evaluations sample
  if run.settings.sampling.cache_gib and slots:
    return {"sampling.cache_gib": int(10 * (free - rest) / GIB) / 10}, ""
  if group <= slots < memory.decoding:
    return {"sampling.slots": slots // group * group}, ""
  return _wider(run, "sampling.cache_dtype='int8' or a smaller train.prompts")


def _pass(run: Described, memory: Memory, name: str, free: float):
  s = run.settings
  if run.config.remat != "full":
    return {"policy.remat": "full"}, ""
  held = lambda run: getattr(Memory(run), "update" if name == "update" else "score")
  prompts = s.train.prompts if s.run == "rl" else s.built["batches"]["size"]
  unit = batch_shards(run.mesh) * (s.train.updates if s.run == "rl" else 1)
  most = 0 if run.micro_tokens else prompts // unit
  for pieces in range(s.train.micro_batches + 1, most + 1):
    train = dataclasses.replace(s.train, micro_batches=pieces)
    finer = dataclasses.replace(run, settings=dataclasses.replace(s, train=train))
    if prompts % (unit * pieces) == 0 and held(finer) <= free:
      return {"train.micro_batches": pieces}, ""
  if s.run == "rl" and run.micro_tokens is None:  # a device then takes less than a group
    row = s.train.max_prompt_tokens + s.train.max_tokens
    return {"train.micro_batches": 1, "train.pack": row, "train.micro_tokens": row}, ""
  window = getattr(s, "window", 0) or s.built.get("data", {}).get("window", 0)
  if window and packed_width(s) > window:
    return {"train.pack": window}, ""
  change, words = _wider(run, "fewer tokens in a row")
  sequence = 2 * run.mesh.shape["sequence"]
  if change or not packed_width(s) or run.mesh.size % (sequence * run.mesh.shape["tensor"]):
    return change, words
  return {"mesh.sequence": sequence}, ""


def _wider(run: Described, words: str):
  """Twice as many devices along the tensor axis, as far as they divide the key heads."""
  tensor = 2 * run.mesh.shape["tensor"]
  if run.config.kv_heads % tensor or run.mesh.size % (tensor * run.mesh.shape["sequence"]):
    return NOTHING, words
  return {"mesh.tensor": tensor}, ""

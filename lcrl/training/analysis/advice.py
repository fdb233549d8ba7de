"""What to change in a config whose run does not fit its devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from lcrl.mesh import batch_shards
from lcrl.training.analysis.arithmetic import MARGIN, Described, Memory
from lcrl.training.analysis.roofline import GIB, Chip


def advice(run: Described, chip: Chip, programs: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """One line for each program that is too large, with the field that makes it smaller.

  Args:
    run: the run, described.
    chip: one device.
    programs: name -> bytes of `Program` and "peak", as compiled or calculated.
  """
  most, lines = (1 - MARGIN) * chip.memory, list[str]()
  memory = Memory(run)
  if memory.state + memory.reference > 0.7 * most:
    lines.append(_state(run, memory))
  for name, program in programs.items():
    if program["peak"] > most:
      change = _sampling if name == "sample" else _pass
      free = most - program["peak"] + program["temporaries"]
      lines.append(f"{name}: {program['peak'] / GIB:.1f} GiB: {change(run, memory, name, free)}")
  return list(dict.fromkeys(lines))


def _state(run: Described, memory: Memory) -> str:
  held = f"parameters and optimizer: {(memory.state + memory.reference) / GIB:.1f} GiB: "
  if run.settings.lora is not None:
    return held + "more devices, mesh.fsdp=-1, or policy.param_dtype='bfloat16'"
  return held + (
    "more devices with mesh.fsdp=-1, optimizer.moments='bfloat16', or a section lora with "
    "policy.param_dtype='bfloat16'"
  )


def _sampling(run: Described, memory: Memory, name: str, free: float) -> str:
  rest = memory.prompts + memory.logits + memory.rows
  row = run.settings.train.max_tokens * memory.key
  slots = int((free - rest) // row)
  if slots >= 1:
    return f"sampling.slots={slots} (now {memory.decoding} rows decode at once on a device)"
  if memory.copy > free:
    return f"the sampler's copy takes {memory.copy / GIB:.1f} GiB: mesh.tensor splits it"
  return "sampling.cache_dtype='int8', a smaller train.prompts, or more devices"


def _pass(run: Described, memory: Memory, name: str, free: float) -> str:
  s = run.settings
  if run.config.remat != "full":
    return "policy.remat='full'"
  prompts = s.train.prompts if s.run == "rl" else s.built["batches"]["size"]
  unit = batch_shards(run.mesh) * (s.train.updates if s.run == "rl" else 1)
  for pieces in range(s.train.micro_batches + 1, prompts // unit + 1):
    if prompts % (unit * pieces):
      continue
    train = dataclasses.replace(s.train, micro_batches=pieces)
    finer = Memory(dataclasses.replace(run, settings=dataclasses.replace(s, train=train)))
    if (finer.update if name == "update" else finer.score) <= free:
      return f"train.micro_batches={pieces}"
  if s.run == "rl":
    return (
      "train.micro_tokens, since a device takes whole groups at once; or more devices along "
      "mesh.tensor or mesh.sequence"
    )
  return "more devices along mesh.tensor or mesh.sequence, or a shorter data.window"

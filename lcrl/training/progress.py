"""Lines that a run prints before its first step, since compiling may take minutes."""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

import jax

from lcrl.policies.hf_config import write_config
from lcrl.training.automatic import said

LARGE = 20_000_000  # parameters that a processor trains too slowly


def say(text: str) -> None:
  """Prints a line to standard error, from the first process only."""
  if jax.process_index() == 0:
    print(text, file=sys.stderr, flush=True)


def introduce(model: Any, out: Any) -> None:
  """Prints the size of the policy and the kernels and options of this run, which config.json gets
  too, and warns if the devices are too slow for it."""
  shapes = jax.eval_shape(model.policy.init, jax.random.key(0))
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
  device, size = model.mesh.devices.flat[0], model.mesh.size
  kind = device.device_kind if device.platform != "cpu" else "CPU"
  say(f"policy: {count:,} parameters on {size} x {kind}")
  say(f"computes with {said(model.chosen)}")
  out.describe(chosen=model.chosen)
  try:
    write_config(model.policy.config)
  except ValueError as why:
    logging.warning("this policy cannot be exported: %s", why)
  if device.platform == "cpu" and count > LARGE:
    logging.warning(
      "a policy of %s parameters wants a GPU or a TPU: on a CPU a step may take hours.",
      f"{count:,}",
    )

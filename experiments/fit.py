"""Will a run fit, and how fast could it be? Compiles its real step for the devices here, or for a
TPU that is only described.

  python -m experiments.fit --config=configs/laser.py
  python -m experiments.fit --config=configs/laser.py --topology=v5e:4x4 [--out=fit.json]
  python -m experiments.fit --config=configs/laser.py --topology=v5p:4x4x4 --model=llama3-8b

A topology needs no TPU, but `pip install 'jax[tpu]'`. Weights are never read: where the policy of
the config is not on this machine, --model names its config.json or a well-known shape.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import jax
from absl import flags, logging

from experiments import command
from lcrl.policies.folder import read_json
from lcrl.policies.hf_config import read_config
from lcrl.policies.shapes import SHAPES
from lcrl.training.analysis.fit import CHIPS, GIB, Program, measure
from lcrl.training.rl.learner import Learner, build_learner
from lcrl.training.rl.settings import read

FLAGS = flags.FLAGS
ACCELERATORS = {"v5e": "v5litepod", "v5p": "v5p", "v6e": "v6e", "tpu7x": "tpu7x"}


def described(spec: dict[str, Any], model: str | None) -> dict[str, Any]:
  """The section policy of a config, such that it needs no weights.

  Raises:
    ValueError: nothing here says how large the policy is.
  """
  if model is None and spec["fn"] != "pretrained":
    return spec
  place = Path(model or spec["path"]).expanduser()
  place = place / "config.json" if place.is_dir() else place
  runtime = {name: spec[name] for name in ("dtype", "remat", "unroll", "attention") if name in spec}
  if model in SHAPES:
    config = dataclasses.replace(SHAPES[model], **runtime)
  elif place.suffix == ".json" and place.is_file():
    config = read_config(read_json(place), str(place), **runtime)
  elif place.suffix == ".gguf" and place.is_file():
    return {**spec, "path": str(place)}
  else:
    raise ValueError(
      f"there is no {place}: name the config.json of the policy, or one of {', '.join(SHAPES)}, "
      "with --model."
    )
  fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
  return {"fn": "fresh", **fields}


def describe(topology: str) -> list[Any]:
  """The devices of a TPU topology such as v5e:4x4, which nothing can be run on."""
  from jax.experimental import topologies

  generation, _, grid = topology.partition(":")
  if generation not in ACCELERATORS or not all(n.isdigit() for n in grid.split("x")):
    raise ValueError(f"topology must be like v5e:4x4, of {[*ACCELERATORS]}, got {topology!r}.")
  chips = math.prod(map(int, grid.split("x")))
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{ACCELERATORS[generation]}-{chips}")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is run
  jax.config.update("jax_platforms", "cpu")  # leave alone what is attached here
  jax.config.update("jax_enable_compilation_cache", False)  # nothing here could load from it
  try:
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
  except Exception as error:
    raise ValueError(f"no topology {topology!r} (is jax[tpu] installed?): {error}") from error


def report(model: Learner, programs: dict[str, Program], tokens: float) -> dict[str, Any]:
  """Everything that is known, as JSON; without a verdict for a device of unknown size."""
  devices, kind = model.mesh.size, model.mesh.devices.flat[0].device_kind
  chip = CHIPS.get(kind)
  rows = {name: {**p._asdict(), "peak": p.peak} for name, p in programs.items()}
  peak = max(p.peak for p in programs.values())
  facts = {
    "devices": devices,
    "kind": kind,
    "mesh": dict(model.mesh.shape),
    "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(model.abstract.params)),
    "decoded_tokens": tokens,
    "programs": rows,
    "peak": peak,
  }
  if chip is None:
    return facts
  for name, program in programs.items():
    rows[name]["roofline_s"] = chip.seconds(program, devices)
  step = sum(row["roofline_s"] for row in rows.values())
  return {**facts, "memory": chip.memory, "fits": peak <= chip.memory, "roofline_s": step}


def table(facts: dict[str, Any]) -> str:
  """The report for a reader."""
  used = " x ".join(f"{name} {size}" for name, size in facts["mesh"].items() if size > 1)
  columns = ("arguments", "outputs", "temporaries", "beside", "peak")
  lines = [
    f"{facts['parameters'] / 1e6:.1f} M parameters on {facts['devices']} x {facts['kind']} "
    f"(mesh {used or 'of one'})",
    "MiB a device".ljust(14) + "".join(f"{name:>13}" for name in columns),
  ]
  for name, row in facts["programs"].items():
    lines.append(f"  {name:<12}" + "".join(f"{row[c] / 2**20:13.1f}" for c in columns))
  lines += ["", "a step".ljust(14) + f"{'TFLOP':>13}{'GB of memory':>13}{'GB sent':>13}{'ms':>13}"]
  for name, row in facts["programs"].items():
    numbers = f"{row['flops'] / 1e12:13.3f}{row['traffic'] / 1e9:13.3f}{row['sent'] / 1e9:13.3f}"
    lines.append(f"  {name:<12}{numbers}" + _milliseconds(row))
  if "fits" in facts:
    verdict = "fits" if facts["fits"] else "does NOT fit"
    lines += [
      "",
      f"It {verdict}: {facts['peak'] / GIB:.2f} of {facts['memory'] / GIB:.0f} GiB a device.",
      f"A step takes at least {facts['roofline_s'] * 1e3:.1f} ms: a roofline (data-sheet peaks, "
      f"all at once), decoding {facts['decoded_tokens']:.0f} tokens; a real step is slower.",
    ]
  return "\n".join(lines)


def _milliseconds(row: dict[str, Any]) -> str:
  return f"{row['roofline_s'] * 1e3:13.2f}" if "roofline_s" in row else ""


def fit(
  config: dict[str, Any],
  *,
  topology: str | None = None,
  model: str | None = None,
  tokens: float | None = None,
) -> dict[str, Any]:
  """`report` of the config's step on the devices here or of a topology."""
  devices = None if topology is None else describe(topology)
  config = {**config, "policy": described(config["policy"], model)}
  built = build_learner(read(config), devices=devices)
  tokens = built.settings.train.max_tokens if tokens is None else tokens
  return report(built, measure(built, tokens=tokens), tokens)


def main(_) -> None:
  logging.set_verbosity(logging.ERROR)
  config = FLAGS.config.to_dict()
  try:
    facts = fit(config, topology=FLAGS.topology, model=FLAGS.model, tokens=FLAGS.tokens)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise SystemExit(f"It does NOT fit, says the compiler: {error}") from None
  print(table(facts))
  if FLAGS.out:
    Path(FLAGS.out).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
  command.define_config(required=True)
  flags.DEFINE_string("topology", None, "TPU to compile for, such as v5e:4x4; None: what is here.")
  flags.DEFINE_string("model", None, f"config.json of the policy, or one of {', '.join(SHAPES)}.")
  flags.DEFINE_float("tokens", None, "Length of a batch's longest response; None: the most.")
  flags.DEFINE_string("out", None, "JSON file for the same numbers.")
  command.run(main, "fit")

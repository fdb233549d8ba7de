"""Will a run fit, and how fast could it be? Compiles its real step for the devices here, or for a
TPU that is only described; for a described GPU it calculates.

  lcrl-fit --config=configs/laser.py
  lcrl-fit --config=configs/laser.py --topology=v5e:4x4 [--out=fit.json]
  lcrl-fit --config=configs/simpo.py --topology=v5p:4x4x4
  lcrl-fit --config=configs/laser.py --topology=h100:8
  lcrl-fit --config=configs/laser.py --topology=v5p:2x2x4 --arithmetic

A TPU topology needs no TPU, but `pip install 'jax[tpu]'`. No compiler answers for GPUs that are
not here: for them, and with --arithmetic, `lcrl.training.analysis.arithmetic` does, at once.
Weights are never read: where the policy of the config is not on this machine and has no well-known
name, --model names its config.json or a well-known shape. What does not fit says which field to
change; the exit status is then 1.
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
from jax.sharding import AbstractMesh, AxisType

from lcrl.commands import command
from lcrl.mesh import AXES, axis_sizes, check_divides
from lcrl.policies.config import Config, tiny
from lcrl.policies.folder import read_json
from lcrl.policies.hf_config import read_config
from lcrl.policies.shapes import FOLDERS, SHAPES
from lcrl.training import kinds
from lcrl.training.analysis import arithmetic
from lcrl.training.analysis.advice import advice
from lcrl.training.analysis.fit import measure, measure_on_pairs
from lcrl.training.analysis.roofline import CHIPS, GIB, Program

FLAGS = flags.FLAGS
ACCELERATORS = {"v5e": "v5litepod", "v5p": "v5p", "v6e": "v6e", "tpu7x": "tpu7x"}
KINDS = {  # generation -> device_kind, and devices of a chip
  "v5e": ("TPU v5 lite", 1),
  "v5p": ("TPU v5", 1),
  "v6e": ("TPU v6 lite", 1),
  "tpu7x": ("TPU7x", 2),
  "t4": ("Tesla T4", 1),
  "l4": ("NVIDIA L4", 1),
  "a100-40": ("NVIDIA A100-SXM4-40GB", 1),
  "a100": ("NVIDIA A100-SXM4-80GB", 1),
  "h100": ("NVIDIA H100 80GB HBM3", 1),
  "h200": ("NVIDIA H200", 1),
}
RUNTIME = ("dtype", "remat", "unroll", "attention")


def described(spec: dict[str, Any], model: str | None) -> dict[str, Any]:
  """The section `policy` of a config in a form that needs no weights.

  Raises:
    ValueError: the size of the policy is unknown.
  """
  if model is None and spec["fn"] == "fresh":
    return spec
  config = shape_of(spec, model)
  if isinstance(config, Path):
    return {**spec, "path": str(config)}
  fields = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
  kept = {name: spec[name] for name in ("param_dtype",) if name in spec}
  return {"fn": "fresh", **fields, **kept}


def shape_of(spec: dict[str, Any], model: str | None = None) -> Config | Path:
  """The model of the section policy; of a GGUF file, its path. Raises as `described` does."""
  runtime = {name: spec[name] for name in RUNTIME if name in spec}
  if model is None and spec["fn"] == "fresh":
    return tiny(**{name: x for name, x in spec.items() if name not in ("fn", "param_dtype")})
  place = Path(model or spec["path"]).expanduser()
  known = FOLDERS.get(place.name, place.name.lower())
  place = place / "config.json" if place.is_dir() else place
  if place.suffix == ".json" and place.is_file():
    return read_config(read_json(place), str(place), **runtime)
  if place.suffix == ".gguf" and place.is_file():
    return place
  if known in SHAPES:
    return dataclasses.replace(SHAPES[known], **runtime)
  raise ValueError(
    f"there is no {place}: name the config.json of the policy, or one of {', '.join(SHAPES)}, "
    "with --model."
  )


def parse(topology: str) -> tuple[str, int]:
  """(generation, devices) of a topology such as v5e:4x4 or h100:8."""
  generation, _, grid = topology.partition(":")
  if generation not in KINDS or not all(n.isdigit() for n in grid.split("x")):
    raise ValueError(f"topology must be like v5e:4x4 or h100:8, of {[*KINDS]}, got {topology!r}.")
  return generation, math.prod(map(int, grid.split("x"))) * KINDS[generation][1]


def describe(topology: str) -> list[Any]:
  """The devices of a TPU topology such as v5e:4x4. They cannot run programs."""
  from jax.experimental import topologies

  generation, count = parse(topology)
  if generation not in ACCELERATORS:
    raise ValueError(f"no compiler here knows {topology!r}: only TPUs can be described to one.")
  chips = count // KINDS[generation][1]
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", f"{ACCELERATORS[generation]}-{chips}")
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nothing is run
  jax.config.update("jax_platforms", "cpu")  # leave alone what is attached here
  jax.config.update("jax_enable_compilation_cache", False)  # nothing here could load from it
  try:
    alone = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **alone).devices
  except Exception as error:
    raise ValueError(f"no topology {topology!r} (is jax[tpu] installed?): {error}") from error


def report(
  programs: dict[str, Program], *, kind: str, mesh: dict[str, int], tokens: float, **facts: Any
) -> dict[str, Any]:
  """Everything that is known, as JSON; without a verdict for a device of unknown size.

  Args:
    programs: those of a step.
    kind: `device_kind` of the devices.
    mesh: sizes of its axes.
    tokens: as long as which all responses are.
    **facts: more of them.
  """
  devices, chip = math.prod(mesh.values()), CHIPS.get(kind)
  rows = {name: {**p._asdict(), "peak": p.peak} for name, p in programs.items()}
  peak = max(p.peak for p in programs.values())
  facts = {"devices": devices, "kind": kind, "mesh": mesh} | facts
  facts |= {"decoded_tokens": tokens, "programs": rows, "peak": peak}
  if chip is None:
    return facts
  for name, program in programs.items():
    rows[name]["roofline_s"] = chip.seconds(program, devices)
  step = sum(row["roofline_s"] for row in rows.values())
  least = 1 - (arithmetic.MARGIN if facts.get("arithmetic") else 0)
  fits = peak <= least * chip.memory
  return {**facts, "memory": chip.memory, "fits": fits, "roofline_s": step}


def table(facts: dict[str, Any]) -> str:
  """The report as text."""
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
      f"It {verdict}: {facts['peak'] / GIB:.2f} of {facts['memory'] / GIB:.0f} GiB a device"
      + (f", of which {arithmetic.MARGIN:.0%} stay free." if facts.get("arithmetic") else "."),
      f"A step takes at least {facts['roofline_s'] * 1e3:.1f} ms: a roofline (data-sheet peaks, "
      f"all at once), decoding {facts['decoded_tokens']:.0f} tokens; a real step is slower.",
    ]
  return "\n".join([*lines, *(f"  {line}" for line in facts.get("advice", ()))])


def _milliseconds(row: dict[str, Any]) -> str:
  return f"{row['roofline_s'] * 1e3:13.2f}" if "roofline_s" in row else ""


def fit(
  config: dict[str, Any],
  *,
  topology: str | None = None,
  model: str | None = None,
  tokens: float | None = None,
  calculate: bool = False,
) -> dict[str, Any]:
  """`report` of the config's step on the devices here or of a topology.

  Args:
    config: of any kind of run.
    topology: TPUs or GPUs that are described; None: the devices here.
    model: a file or shape in place of the config's policy.
    tokens: of the longest response; None: the most.
    calculate: do not compile.
  """
  if topology and (calculate or parse(topology)[0] not in ACCELERATORS):
    return calculated(config, topology, shape_of(config["policy"], model), tokens=tokens)
  devices = None if topology is None else describe(topology)
  config = {**config, "policy": described(config["policy"], model)}
  kind = kinds.kind(config)
  settings = kind.settings(config)
  if settings.run == "iterative":
    raise ValueError("a round and its steps are not compiled together: take --arithmetic.")
  built = kind.model(settings, devices=devices)
  check_shares(settings, built.mesh)
  tokens = _tokens(settings, tokens)
  kind_of_device = built.mesh.devices.flat[0].device_kind
  mesh = AbstractMesh(tuple(built.mesh.shape.values()), AXES)
  nvidia = "NVIDIA" in kind_of_device
  run = arithmetic.describe(settings, built.policy.config, mesh, nvidia=nvidia)
  if settings.run == "rl":
    measured = measure(built, tokens=tokens)
  else:
    measured, calculated_too = measure_on_pairs(built), arithmetic.estimate(run)["update"]
    work: dict[str, Any] = {"flops": calculated_too.flops, "traffic": calculated_too.traffic}
    measured["update"] = measured["update"]._replace(**work)
  shapes = built.abstract.params if settings.lora is None else built.frozen
  facts = report(
    measured,
    kind=kind_of_device,
    mesh=dict(built.mesh.shape),
    tokens=tokens,
    parameters=sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)),
  )
  chip = CHIPS.get(kind_of_device)
  if chip is None or facts["fits"]:
    return facts
  return facts | {"advice": [str(a) for a in advice(run, chip, facts["programs"])]}


def calculated(
  config: dict[str, Any],
  topology: str,
  shape: Config | Path,
  *,
  tokens: float | None = None,
  micro_tokens: int | None = None,
) -> dict[str, Any]:
  """`report` of the config's step by arithmetic, and what to change if it does not fit: "advice" in
  words, and "changes", field -> value, where fields would do."""
  if isinstance(shape, Path):
    raise ValueError(f"{shape}: the size of a GGUF file is not calculated; name a shape, --model.")
  generation, count = parse(topology)
  kind = KINDS[generation][0]
  settings = kinds.kind(config).settings(config)
  sizes = axis_sizes(settings.mesh.devices or count, **settings.mesh.axes)
  mesh = AbstractMesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))
  run = arithmetic.describe(
    settings, shape, mesh, nvidia="NVIDIA" in kind, micro_tokens=micro_tokens
  )
  check_shares(settings, mesh, run.micro_tokens)
  tokens = _tokens(settings, tokens)
  facts = report(
    arithmetic.estimate(run, tokens=tokens),
    kind=kind,
    mesh=sizes,
    tokens=tokens,
    parameters=arithmetic.parameters(shape),
    arithmetic=True,
  )
  if facts["fits"]:
    return facts
  said = advice(run, CHIPS[kind], facts["programs"])
  changes = {name: value for one in said for name, value in one.fields.items()}
  return facts | {"advice": [*map(str, said)], "changes": changes}


def check_shares(s: Any, mesh: Any, micro_tokens: int | None = None) -> None:
  """Raises ValueError unless the batch of a run can be cut over these devices."""
  if s.run != "rl":
    size, pieces = s.built["batches"]["size"], s.train.micro_batches
    check_divides(mesh, prompts=size, pieces=pieces, field="batches.size", of="train.micro_batches")
  else:
    pieces = 1 if micro_tokens else s.train.micro_batches * s.train.updates
    check_divides(mesh, prompts=s.train.prompts, pieces=pieces)


def cut_anew(config: dict[str, Any], topology: str) -> dict[str, Any]:
  """Fields with which the batch of a config divides over a topology: fewer micro-batches, or pieces
  by tokens in RL, or a sequence axis for packed pairs; none if there are none."""
  s, (_, count) = kinds.kind(config).settings(config), parse(topology)
  sizes = axis_sizes(count, **s.mesh.axes)
  unit = sizes["data"] * sizes["fsdp"] * getattr(s.train, "updates", 1)
  size = s.train.prompts if s.run == "rl" else s.built["batches"]["size"]
  for pieces in range(s.train.micro_batches, 0, -1):
    if size % (unit * pieces) == 0:
      return {"train.micro_batches": pieces}
  if s.run != "rl":
    return (
      {"mesh.sequence": unit // size} if arithmetic.packed_width(s) and unit % size == 0 else {}
    )
  row = s.train.max_prompt_tokens + s.train.max_tokens
  return {"train.micro_batches": 1, "train.pack": row, "train.micro_tokens": row}


def _tokens(settings: Any, tokens: float | None) -> float:
  return getattr(settings.train, "max_tokens", 0) if tokens is None else tokens


def main(_) -> None:
  logging.set_verbosity(logging.ERROR)
  config = FLAGS.config.to_dict()
  try:
    facts = fit(
      config,
      topology=FLAGS.topology,
      model=FLAGS.model,
      tokens=FLAGS.tokens,
      calculate=FLAGS.arithmetic,
    )
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    shape = shape_of(config["policy"], FLAGS.model)
    why = calculated(config, FLAGS.topology, shape).get("advice", ()) if FLAGS.topology else ()
    said = str(error).partition("\n")[0]
    raise SystemExit("\n  ".join([f"It does NOT fit, says the compiler: {said}", *why])) from None
  print(table(facts))
  if FLAGS.out:
    Path(FLAGS.out).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
  if not facts.get("fits", True):
    raise SystemExit(1)


if __name__ == "__main__":
  command.define_config(required=True)
  flags.DEFINE_string("topology", None, "Such as v5e:4x4 or h100:8; None: what is here.")
  flags.DEFINE_string("model", None, f"config.json of the policy, or one of {', '.join(SHAPES)}.")
  flags.DEFINE_float("tokens", None, "Length of a batch's longest response; None: the most.")
  flags.DEFINE_bool("arithmetic", False, "Calculate for the topology, and do not compile.")
  flags.DEFINE_string("out", None, "JSON file for the same numbers.")
  command.run(main, "fit")

"""A checkpoint as a Hugging Face folder, which `transformers` and `lcrl.policies.load` read.

python -m experiments.export --workdir=runs/laser --out=exported [--step=100]
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import app, flags

from lcrl import policies
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.model import Model, build_model
from lcrl.training.settings import Mesh, Settings, read

FLAGS = flags.FLAGS

# What a tokenizer may consist of, beside the model's own files.
TOKENIZER_FILES = ("tokenizer*", "special_tokens_map.json", "vocab.*", "merges.txt")
TOKENIZER_FILES += ("added_tokens.json", "chat_template*", "generation_config.json")


def read_config(workdir: Path) -> dict[str, Any]:
  """The config with which a run was started."""
  place = workdir / "config.json"
  if not place.is_file():
    raise ValueError(f"{workdir} is not a run folder: it has no config.json.")
  try:
    return json.loads(place.read_text(encoding="utf-8"))["config"]
  except (json.JSONDecodeError, KeyError) as error:
    raise ValueError(f"{place} is not the config of a run: {error!r}.") from None


def anywhere(settings: Settings, *, prompts: int) -> Settings:
  """The same policy on the devices here, however many trained it; `prompts` rows at a time."""
  train = dataclasses.replace(settings.train, prompts=prompts, micro_batches=1, updates=1)
  return dataclasses.replace(settings, mesh=Mesh(), train=train)


def restore(workdir: Path, model: Model, step: int | None = None) -> tuple[int, Any]:
  """(step, params) of a checkpoint of the run."""
  checkpoints = Checkpoints(workdir / "checkpoints")
  try:
    found = checkpoints.restore(model.abstract, step)
  finally:
    checkpoints.close()
  if found is None:
    raise ValueError(f"{workdir} holds no checkpoint.")
  return found[0], found[1].params


def copy_tokenizer(config: Mapping[str, Any], out: Path) -> list[str]:
  """Copies the files of the tokenizer that the run used; returns their names."""
  source = {**config["policy"], **config.get("tokenizer", {})}.get("path")
  folder = Path(source) if source else None
  if folder is None or not folder.is_dir():
    return []
  files = sorted({path for pattern in TOKENIZER_FILES for path in folder.glob(pattern)})
  return [shutil.copy2(path, out).name for path in files if path.is_file()]


def export(workdir: Path, out: Path, step: int | None = None) -> int:
  """Writes the folder; returns the step of the checkpoint."""
  config = read_config(workdir)
  model = build_model(anywhere(read(config), prompts=jax.device_count()))
  step, params = restore(workdir, model, step)
  out.mkdir(parents=True, exist_ok=True)
  policies.save(out, model.policy, params)
  if not copy_tokenizer(config, out):
    print("The run has no tokenizer folder: none was copied.")
  return step


def main(_) -> None:
  try:
    step = export(Path(FLAGS.workdir), Path(FLAGS.out), FLAGS.step)
  except ValueError as error:
    raise SystemExit(f"export: {error}") from None
  print(f"step {step} of {FLAGS.workdir} is in {FLAGS.out}")


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("out", None, "Folder to write; made if absent.", required=True)
  flags.DEFINE_integer("step", None, "Which checkpoint; the newest valid one if not given.")
  app.run(main)

"""Exports a checkpoint as a Hugging Face folder for `transformers` and `lcrl.policies.load`.

python -m experiments.export --workdir=runs/laser --out=exported [--step=100]
python -m experiments.export --workdir=runs/laser --out=exported --push=OWNER/NAME   to a hub, too
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments import command
from lcrl import policies
from lcrl.training import kinds
from lcrl.training.build import build_tokenizer
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.remote import opened, origin
from lcrl.training.sections import Mesh
from lcrl.training.workdir import read_config

FLAGS = flags.FLAGS


def anywhere(settings: Any, *, prompts: int) -> Any:
  """The settings for the devices of this machine, with `prompts` rows at a time."""
  new = {"prompts": prompts, "micro_batches": 1, "updates": 1}
  known = {name: value for name, value in new.items() if hasattr(settings.train, name)}
  train = dataclasses.replace(settings.train, **known)
  sampling = settings.sampling
  if getattr(sampling, "devices", 0):
    sampling = dataclasses.replace(sampling, devices=0)
  return dataclasses.replace(settings, mesh=Mesh(), train=train, sampling=sampling)


def restore(workdir: Path, model: Any, step: int | None = None) -> tuple[int, Any]:
  """(step, params of the policy) of a checkpoint of the run, with merged adapters."""
  checkpoints = Checkpoints(workdir / "checkpoints")
  try:
    restored = checkpoints.restore(model.abstract, step)
  finally:
    checkpoints.close()
  if restored is None:
    raise ValueError(f"{origin(workdir)} holds no checkpoint.")
  return restored[0], model.policy_params(restored[1].params)


def export(workdir: Path, out: Path, step: int | None = None) -> int:
  """Writes the folder, with the tokenizer if the run's came from a folder; returns the step."""
  config = read_config(workdir)
  kind = kinds.acting(config)
  settings = kind.settings(config)
  model = kind.model(anywhere(settings, prompts=len(jax.devices())))
  tokenizer = build_tokenizer(settings)
  step, params = restore(workdir, model, step)
  saved = tokenizer if isinstance(tokenizer, policies.Tokenizer) else None
  policies.save(out, model.policy, params, saved)
  return step


def push(folder: Path, name: str) -> str:
  """Uploads the folder as the model `name` (OWNER/NAME), which becomes a private one if it is new;
  returns its address.

  Raises:
    ValueError: huggingface_hub is not installed, or the hub refuses.
  """
  try:
    import huggingface_hub as hub
  except ImportError:
    raise ValueError("--push needs huggingface_hub: pip install 'lcrl-jax[hub]'.") from None
  try:
    hub.create_repo(name, private=True, exist_ok=True)
    return str(hub.upload_folder(repo_id=name, folder_path=folder))
  except Exception as why:  # the client raises errors of several libraries
    raise ValueError(f"--push={name}: the hub says: {why} The folder {folder} is whole.") from why


def main(_) -> None:
  step = export(opened(FLAGS.workdir), Path(FLAGS.out), FLAGS.step)
  print(f"step {step} of {FLAGS.workdir} is in {FLAGS.out}")
  if FLAGS.push:
    print(f"and at {push(Path(FLAGS.out), FLAGS.push)}")


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
  flags.DEFINE_string("out", None, "Folder to write; made if absent.", required=True)
  flags.DEFINE_integer(
    "step", None, "The step of the checkpoint; the newest valid one if not given."
  )
  flags.DEFINE_string("push", None, "OWNER/NAME on a hub that the folder is uploaded to.")
  command.run(main, "export")

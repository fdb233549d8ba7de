"""Exports a checkpoint as a Hugging Face folder for `transformers` and `lcrl.policies.load`.

lcrl-export --workdir=runs/laser --out=exported [--step=100]
lcrl-export --workdir=runs/laser --out=exported --push=OWNER/NAME   to a hub, too
"""

from __future__ import annotations

from pathlib import Path

import jax
from absl import flags

from lcrl import policies
from lcrl.commands import command
from lcrl.training import kinds
from lcrl.training.build import build_tokenizer
from lcrl.training.remote import opened
from lcrl.training.saved_policy import anywhere, restore
from lcrl.training.workdir import read_config

FLAGS = flags.FLAGS


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

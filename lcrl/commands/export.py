"""Exports a checkpoint as a Hugging Face folder for `transformers` and `lcrl.policies.load`.

lcrl-export --workdir=runs/laser --out=exported [--step=100]
lcrl-export --workdir=runs/laser --out=exported --push=OWNER/NAME   to a hub, too
lcrl-export --workdir=runs/laser --out=model.gguf --gguf_type=q8_0  for llama.cpp
lcrl-export --model=exported --out=model.gguf                       a model folder for llama.cpp
"""

from __future__ import annotations

from pathlib import Path

import jax
from absl import flags

from lcrl import policies
from lcrl.commands import command
from lcrl.policies.gguf_write import TYPES
from lcrl.training import kinds
from lcrl.training.build import build_tokenizer
from lcrl.training.remote import opened
from lcrl.training.saved_policy import anywhere, restore
from lcrl.training.workdir import read_config

FLAGS = flags.FLAGS


def export(workdir: Path, out: Path, step: int | None = None, gguf_type: str = "f16") -> int:
  """Writes the folder, with the tokenizer if the run's came from a folder, or the GGUF file;
  returns the step."""
  config = read_config(workdir)
  kind = kinds.acting(config)
  settings = kind.settings(config)
  model = kind.model(anywhere(settings, prompts=len(jax.devices())))
  tokenizer = build_tokenizer(settings)
  step, params = restore(workdir, model, step)
  saved = tokenizer if isinstance(tokenizer, policies.Tokenizer) else None
  write(out, model.policy, params, saved, gguf_type)
  return step


def write(out: Path, policy, params, tokenizer, gguf_type: str) -> None:
  """A GGUF file if `out` ends in .gguf, else a folder."""
  if out.suffix != ".gguf":
    policies.save(out, policy, params, tokenizer)
  elif tokenizer is None:
    raise ValueError(f"--out={out}: a GGUF file needs a tokenizer, and the run's has no files.")
  else:
    policies.save_gguf(out, policy, params, tokenizer, type=gguf_type)


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
  out = Path(FLAGS.out)
  if FLAGS.push and out.suffix == ".gguf":
    raise ValueError("--push uploads folders, and --out is a GGUF file.")
  if FLAGS.model:
    policy, params = policies.load(FLAGS.model)
    write(out, policy, params, policies.tokenizer(FLAGS.model), FLAGS.gguf_type)
    print(f"{FLAGS.model} is in {out}")
  else:
    step = export(opened(FLAGS.workdir), out, FLAGS.step, FLAGS.gguf_type)
    print(f"step {step} of {FLAGS.workdir} is in {out}")
  if FLAGS.push:
    print(f"and at {push(Path(FLAGS.out), FLAGS.push)}")


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "Folder of the run.")
  flags.DEFINE_string("model", None, "A model folder, in place of a run.")
  flags.mark_flags_as_mutual_exclusive(["workdir", "model"], required=True)
  flags.DEFINE_string("out", None, "Folder or .gguf file to write; made if absent.", required=True)
  flags.DEFINE_enum("gguf_type", "f16", list(TYPES), "Type of matrices in a GGUF file.")
  flags.DEFINE_integer(
    "step", None, "The step of the checkpoint; the newest valid one if not given."
  )
  flags.DEFINE_string("push", None, "OWNER/NAME on a hub that the folder is uploaded to.")
  command.run(main, "export")

"""The flags of a command that asks a model for texts, and the model that they name."""

from __future__ import annotations

from absl import flags

from lcrl.rollouts.writer import Write, open_writer

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists them among those of the command


def define(*, max_tokens: int, max_prompt_tokens: int, temperature: float | None = None) -> None:
  """Defines --model, --max_tokens, --max_prompt_tokens and --batch, with these defaults; and
  --temperature if there is a default."""
  flags.DEFINE_string("model", None, "Folder of the model, or a GGUF file.", required=True)
  flags.DEFINE_integer("max_tokens", max_tokens, "Tokens of an answer, at most.")
  flags.DEFINE_integer("max_prompt_tokens", max_prompt_tokens, "Tokens of a request, at most.")
  flags.DEFINE_integer("batch", 16, "Requests that are answered at a time.")
  if temperature is not None:
    flags.DEFINE_float("temperature", temperature, "0: the most likely token.")


def writer(*, seed: int = 0) -> Write:
  """The model of the flags; without --temperature, it takes the most likely token."""
  return open_writer(
    FLAGS.model,
    max_tokens=FLAGS.max_tokens,
    max_prompt_tokens=FLAGS.max_prompt_tokens,
    temperature=FLAGS.temperature if "temperature" in FLAGS else 0.0,
    batch=FLAGS.batch,
    seed=seed,
  )

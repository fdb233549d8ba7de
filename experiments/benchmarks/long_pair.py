"""One preference step on a pair of long answers: memory and time, with random weights.

python -m experiments.benchmarks.long_pair --attention=cudnn              # 2 x 32k tokens, one H100
python -m experiments.benchmarks.long_pair --shape=laptop --length=512 --dtype=float32 --repeats=1

Prints one JSON line, and writes it to --out. `compiled_gib` is what the compiler sets aside for the
step: arguments, results and scratch; `peak_gib` is what the device saw in use, where it says.
"""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks.shapes import config, failure, machine, peak_gib, timed
from lcrl.training.pairs.learner import PairLearner, build_learner
from lcrl.training.pairs.settings import read
from lcrl.types import Pairs

FLAGS = flags.FLAGS


def model() -> PairLearner:
  changes = dict(attention=FLAGS.attention, remat=FLAGS.remat, max_length=FLAGS.length)
  shape = config(FLAGS.shape, dtype=FLAGS.dtype, **changes)
  sizes = {f.name: getattr(shape, f.name) for f in dataclasses.fields(shape)}
  sections = {
    "run": "preference",
    "seed": 0,
    "loss": {"fn": FLAGS.loss},
    "data": {"fn": "pairs", "rows": None, "window": FLAGS.length},
    "batches": {"fn": "bucketed", "size": FLAGS.pairs, "lengths": (FLAGS.length,)},
    "policy": {"fn": "fresh", **sizes},
    "optimizer": {"fn": "adamw", "learning_rate": 1e-6},
    "mesh": {"data": 1, "fsdp": 1},
    "train": {"steps": 1, "max_tokens": 1, "micro_batches": FLAGS.micro_batches},
  }
  if FLAGS.lora_rank:
    sections["lora"] = {"rank": FLAGS.lora_rank, "alpha": 2.0 * FLAGS.lora_rank}
  if FLAGS.loss == "dpo":
    sections["reference"] = {"fn": "cached"}
  return build_learner(read(sections), devices=jax.devices()[:1])


def pairs(vocab: int) -> Pairs:
  """Random answers that fill their rows."""
  shape = (FLAGS.pairs, 2, FLAGS.length)
  mask = np.broadcast_to(np.arange(FLAGS.length) >= FLAGS.prompt, shape)
  rng = np.random.default_rng(0)
  fields: dict[str, Any] = {
    "tokens": rng.integers(0, vocab, shape, dtype=np.int32),
    "mask": mask,
    "lengths": mask.sum(-1, dtype=np.int32),
    "valid": np.ones(shape[0], bool),
    "pair_ids": np.arange(shape[0], dtype=np.int32),
    "scores": np.full(shape[:2], np.nan, np.float32),
  }
  return Pairs(**fields, signals={})


def measure() -> dict:
  made = model()
  state, base = made.initial(), made.base()
  placed = made.place(pairs(made.policy.config.vocab_size))
  ref = jnp.zeros(placed.mask.shape) if "ref" in made.stage.needs else None
  batch = made.derive(placed, ref, 0)
  step = made.learn.lower(base, state, batch).compile()
  found: dict = {}
  if memory := step.memory_analysis():
    used = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    found["compiled_gib"] = (used - memory.alias_size_in_bytes) / 2**30
    found["scratch_gib"] = memory.temp_size_in_bytes / 2**30

  def once():
    nonlocal state
    state, metrics = step(base, state, batch)
    return metrics["loss"]

  found |= timed(once, FLAGS.repeats)
  found["tokens_per_s"] = 2 * FLAGS.pairs * FLAGS.length / found["seconds"]
  found["loss_value"] = float(once().total)
  return found | {"peak_gib": peak_gib()}


def main(argv) -> None:
  del argv
  asked = ("shape", "length", "pairs", "loss", "dtype", "attention", "remat", "lora_rank")
  result = machine() | {name: FLAGS[name].value for name in asked}
  try:
    result |= measure()
  except RuntimeError as error:  # out of memory is a result
    result |= failure(error)
  line = json.dumps(result)
  print(line)
  if FLAGS.out:
    folder = pathlib.Path(FLAGS.out)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "long_pair.json").write_text(line + "\n")


def define():
  """The flags of this program."""
  flags.DEFINE_string("shape", "qwen2.5-0.5b", "a name in lcrl.policies.shapes, or laptop")
  flags.DEFINE_integer("length", 32768, "tokens of a side, prompt and answer")
  flags.DEFINE_integer("prompt", 512, "of these, the prompt's")
  flags.DEFINE_integer("pairs", 1, "pairs of a step")
  flags.DEFINE_integer("micro_batches", 1, "pieces of a step, of whole pairs")
  flags.DEFINE_string("loss", "dpo", "a loss; its reference is log-probs that are there")
  flags.DEFINE_integer("lora_rank", 0, "of adapters; 0: the whole model trains")
  flags.DEFINE_string("attention", "xla", "back end")
  flags.DEFINE_string("remat", "full", "what the backward pass keeps")
  flags.DEFINE_string("dtype", "bfloat16", "of the computation; parameters are float32")
  flags.DEFINE_integer("repeats", 5, "timed steps after the first")
  flags.DEFINE_string("out", None, "a folder for long_pair.json")


if __name__ == "__main__":
  define()
  app.run(main)

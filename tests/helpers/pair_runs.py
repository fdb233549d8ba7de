"""The config of a small run on pairs, changes of it, and the state that a run ends with."""

import copy

from lcrl.training.checkpoint import Checkpoints
from lcrl.training.pairs.learner import build_learner
from lcrl.training.pairs.settings import read

CONFIG = {
  "run": "preference",
  "seed": 3,
  "loss": {"fn": "dpo", "beta": 0.5},
  "reference": {"fn": "shared"},
  "lora": {"rank": 2, "alpha": 4.0, "targets": ("query", "down")},
  "data": {"fn": "pairs", "rows": {"fn": "jsonl", "path": ""}, "window": 32, "held_out": 0.25},
  "batches": {"fn": "stratified", "size": 4},
  "policy": {"fn": "fresh", "vocab_size": 258, "hidden_size": 16, "layers": 1, "mlp_size": 16},
  "tokenizer": {"fn": "utf8"},
  "sampling": {"temperature": 1.0},
  "optimizer": {"fn": "adamw", "learning_rate": 3e-2},
  "mesh": {"data": 1, "fsdp": 1},
  "train": {"steps": 4, "max_tokens": 16, "max_prompt_tokens": 16, "prompts": 4, "pack": 64},
  "eval": {"pairs": 8, "prompts": 4},
  "checkpoint": {"every": 2, "keep": 9},
}


def changed(rows, **fields):
  """CONFIG with "section__field" set; None removes it."""
  config = copy.deepcopy(CONFIG)
  config["data"]["rows"]["path"] = rows
  for name, value in fields.items():
    *sections, field = name.split("__")
    place = config
    for section in sections:
      place = place[section]
    if value is None:
      place.pop(field, None)
    else:
      place[field] = value
  return config


def final_state(workdir, config):
  return Checkpoints(workdir / "checkpoints").restore(build_learner(read(config)).abstract)[1]

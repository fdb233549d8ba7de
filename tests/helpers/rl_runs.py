"""The config of a small RL run, changes of it, and the state that a run ends with."""

import copy

from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read

CONFIG = {
  "seed": 3,
  "budget": {"fn": "fixed", "target": 12, "cap": 16},
  "reward": {"fn": "length_penalty", "alpha": 0.02},  # differs between rollouts from the start
  "filter": {"fn": "keep_all"},
  "advantage": {"fn": "group_normalized"},
  "loss": {"fn": "clipped_surrogate"},
  "weights": {"fn": "token_mean"},
  "policy": {"fn": "fresh", "vocab_size": 20, "hidden_size": 16, "layers": 1, "mlp_size": 16},
  "tokenizer": {"fn": "sums"},
  "task": {"fn": "arithmetic", "size": 64, "seed": 0},
  "eval_task": {"same": True},
  "sampling": {"temperature": 1.0},
  "optimizer": {"fn": "adamw", "learning_rate": 1e-2},
  "mesh": {"data": 1, "fsdp": 1},
  "train": {"steps": 4, "prompts": 4, "group_size": 4, "max_tokens": 16, "max_prompt_tokens": 9},
  "eval": {"prompts": 6},
  "checkpoint": {"every": 2, "keep": 9},
  "verify": {"workers": 1},
}


def changed(**fields):
  """CONFIG with "section__field" set; None removes it."""
  config = copy.deepcopy(CONFIG)
  for name, value in fields.items():
    *sections, field = name.split("__")
    place = config
    for section in sections:
      place = place[section]
    if value is None:
      del place[field]
    else:
      place[field] = value
  return config


def final_state(workdir, config=CONFIG):
  return Checkpoints(workdir / "checkpoints").restore(build_learner(read(config)).abstract)[1]

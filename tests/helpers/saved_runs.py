"""Run folders as if a run had stopped."""

import json

from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read

CONFIG = {
  "seed": 3,
  "budget": {"fn": "fixed", "target": 12, "cap": 16},
  "reward": {"fn": "correctness"},
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
  "verify": {"workers": 1},
}


def save_run(workdir, config=CONFIG, steps=(1,)):
  """A run folder as if the run had stopped after its last step; returns (policy, params)."""
  workdir.mkdir()
  (workdir / "config.json").write_text(json.dumps({"config": config, "reward": ""}))
  model = build_learner(read(config))
  state = model.initial()
  checkpoints = Checkpoints(workdir / "checkpoints")
  for step in steps:
    checkpoints.save(step, state)
  checkpoints.close()
  return model.policy, state.params

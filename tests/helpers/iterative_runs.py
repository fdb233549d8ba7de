"""The config of a small iterative run, and changes of it."""

import copy

STEPS, UPDATES = 6, 3  # two rounds
CONFIG = {
  "run": "iterative",
  "seed": 3,
  "budget": {"fn": "fixed", "target": 12, "cap": 16},
  "reward": {"fn": "length_penalty", "alpha": 0.02},  # differs between answers from the start
  "pairing": {"fn": "best_vs_worst"},
  "loss": {"fn": "inpo"},  # it compares with both: the first policy, and that of the round
  "reference": {"fn": "start"},
  "batches": {"fn": "stratified", "size": 2},
  "policy": {"fn": "fresh", "vocab_size": 20, "hidden_size": 16, "layers": 1, "mlp_size": 16},
  "tokenizer": {"fn": "sums"},
  "task": {"fn": "arithmetic", "size": 64, "seed": 0},
  "eval_task": {"same": True},
  "optimizer": {"fn": "adamw", "learning_rate": 1e-2},
  "mesh": {"data": 1, "fsdp": 1},
  "round": {"prompts": 4, "group_size": 4, "updates": UPDATES},
  "train": {"steps": STEPS, "prompts": 4, "max_tokens": 16, "max_prompt_tokens": 9},
  "eval": {"prompts": 4},
  "checkpoint": {"every": 1, "keep": 9},
  "verify": {"workers": 1},
}


def changed(**fields):
  """CONFIG with sections replaced; None removes one, train and round are changed by field."""
  config = copy.deepcopy(CONFIG)
  for name, value in fields.items():
    config[name] = config[name] | value if name in ("train", "round") else value
  return {name: value for name, value in config.items() if value is not None}

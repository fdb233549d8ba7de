"""The config of a step that is small enough to compile and large enough to measure."""

CONFIG = {
  "seed": 0,
  "budget": {"fn": "fixed", "target": 32},
  "reward": {"fn": "correctness"},
  "filter": {"fn": "keep_all"},
  "advantage": {"fn": "group_normalized"},
  "loss": {"fn": "clipped_surrogate"},
  "weights": {"fn": "token_mean"},
  "policy": {
    "fn": "fresh",
    "vocab_size": 768,
    "hidden_size": 256,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 64,
    "mlp_size": 768,
  },
  "task": {"fn": "arithmetic"},
  "sampling": {},
  "optimizer": {"fn": "adamw", "learning_rate": 1e-3},
  "train": {"steps": 1, "prompts": 8, "group_size": 2, "max_tokens": 32, "max_prompt_tokens": 32},
}

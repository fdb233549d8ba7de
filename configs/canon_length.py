"""CANON by length: long against short responses of a group; long ones are worth a little less.

Source  arXiv:2509.23962 and its code (512 x 16, mini-batch 32, mu 1; alpha 0.9 for efficiency from
        secondary notes); the advantage is not divided by a deviation
Tier    A
Data    MATH's train split as JSON lines in data/math.jsonl
Run     python -m experiments.train --config=configs/canon_length.py --workdir=$WORKDIR
Smoke   the same with --config=configs/canon_length.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.modes import is_smoke
from configs.smoke import shrink


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="canon_length", mu=1.0, alpha=0.9)
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="fixed_length", length=8192)
  c.policy = common.pretrained("Qwen2.5-Math-7B")
  c.task = common.math()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=5, weight_decay=0.1)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=150, prompts=512, group_size=16, max_tokens=8192, micro_batches=2, updates=16
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.weights.length = 16
  return c


def sweep(add):
  for alpha in (0.8, 0.9, 1.0):
    add({"advantage.alpha": alpha})

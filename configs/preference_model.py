"""A preference model of pairs: it says which of two answers wins, and cycles are allowed.

Runs of configs/sppo_iterative.py:general and configs/inpo_iterative.py:general name this run's
folder in their section `learned`.

Source  arXiv:2410.02197 and its code (embeddings of length 1, temperature 0.1, rate 2e-6); without
        its scale for each prompt
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/preference_model.py --workdir=$WORKDIR
Smoke   the same with --config=configs/preference_model.py:smoke (one CPU, under a minute)
Fits    h100:1: 42 of 80 GiB a device, at least 7 s a step
        v5p:2x2x1: 12 of 95 GiB a device, at least 4 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rewards
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "reward_model", "seed": 0})
  c.loss = dict(fn="general_preference")
  c.head = dict(dimensions=6, temperature=0.1)
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.data = common.ultrafeedback()
  c.batches = dict(fn="stratified", size=128)
  c.optimizer = dict(fn="adamw", learning_rate=2e-6, warmup_steps=24, decay_steps=478)
  c.mesh = common.fsdp()
  c.train = dict(steps=478, micro_batches=16)
  c.eval = dict(every=100, pairs=512)
  if is_smoke(mode):
    shrink_rewards(c)
  return c


def sweep(add):
  for dimensions in (2, 4, 6, 8):
    add({"head.dimensions": dimensions})

"""A reward model of pairs: the chosen answer's reward shall stand above the rejected one's.

Source  arXiv:2203.02155; centring arXiv:2312.09244
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/reward_model.py --workdir=$WORKDIR
Smoke   the same with --config=configs/reward_model.py:smoke (one CPU, under a minute)
Fits    h100:4: 52 of 80 GiB a device, at least 9 s a step
        v5p:2x2x1: 52 of 95 GiB a device, at least 18 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rewards
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "reward_model", "seed": 0})
  c.loss = dict(fn="pairwise", margin=0.0, centring=0.01)
  c.policy = common.pretrained("Llama-3-Base-8B-SFT")
  c.data = common.ultrafeedback()
  c.batches = dict(fn="stratified", size=128)
  c.optimizer = dict(fn="adamw", learning_rate=5e-6, warmup_steps=24, decay_steps=478)
  c.mesh = common.fsdp()
  c.train = dict(steps=478, micro_batches=16)
  c.eval = dict(every=100, pairs=512)
  if is_smoke(mode):
    shrink_rewards(c)
  return c


def sweep(add):
  for value in (0.0, 0.01, 0.1):
    add({"loss.centring": value})

"""AlphaPO: SimPO with a reward that bends for unlikely answers.

Source  arXiv:2501.03884, its settings for Mistral-7B-Instruct
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/alphapo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/alphapo.py:smoke (one CPU, under a minute)
Fits    h100:4: 44 of 80 GiB a device, at least 8 s a step
        v5p:2x2x1: 44 of 95 GiB a device, at least 17 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_pairs
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="alphapo", alpha=0.25, beta=2.5, margin=0.04)
  c.policy = common.pretrained("Mistral-7B-Instruct-v0.2")
  c.data = common.ultrafeedback()
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.7)
  c.optimizer = common.ultrafeedback_adamw(7e-7)
  c.mesh = common.fsdp()
  c.train = common.ultrafeedback_train()
  c.eval = common.pairs_evaluation()
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (-0.25, 0.0, 0.25, 0.5):
    add({"loss.alpha": value})

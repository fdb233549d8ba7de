"""ORPO: likelihood of the chosen answer plus the odds against the other; no reference.

Source  arXiv:2403.07691
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/orpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/orpo.py:smoke (one CPU, under a minute)
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
  c.loss = dict(fn="orpo", weight=0.1, likelihood=1.0)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Mistral-7B-v0.1")
  c.data = common.ultrafeedback()
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.7)
  c.optimizer = common.ultrafeedback_adamw(5e-6)
  c.mesh = common.fsdp()
  c.train = common.ultrafeedback_train()
  c.eval = common.pairs_evaluation()
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (0.1, 0.2, 0.5):
    add({"loss.weight": value})

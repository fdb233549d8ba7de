"""Iterative RPO's loss: DPO plus the mean log-likelihood of the chosen answer.

Source  arXiv:2404.19733
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/irpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/irpo.py:smoke (one CPU, under a minute)
Fits    h100:4: 52 of 80 GiB a device, at least 9 s a step
        v5p:2x2x1: 52 of 95 GiB a device, at least 18 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_pairs
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="rpo", beta=0.1, likelihood=1.0)
  c.weights = dict(fn="sequence_mean")
  c.reference = dict(fn="cached")
  c.policy = common.pretrained("Llama-3-Base-8B-SFT")
  c.data = common.ultrafeedback()
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.7)
  c.optimizer = common.ultrafeedback_adamw(5e-7)
  c.mesh = common.fsdp()
  c.train = common.ultrafeedback_train()
  c.eval = common.pairs_evaluation()
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (0.1, 0.3, 1.0):
    add({"loss.likelihood": value})

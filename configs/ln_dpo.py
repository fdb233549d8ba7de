"""LN-DPO: DPO of mean log-ratios.

Source  arXiv:2407.15229; beta as in Tulu 3, arXiv:2411.15124
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/ln_dpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/ln_dpo.py:smoke (one CPU, under a minute)
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
  c.loss = dict(fn="ln_dpo", beta=5.0)
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
  for value in (2.0, 5.0, 10.0):
    add({"loss.beta": value})

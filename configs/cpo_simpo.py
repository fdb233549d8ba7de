"""CPO-SimPO: SimPO held up by the likelihood of the chosen answer.

Source  arXiv:2401.08417 and github.com/fe1ixxu/CPO_SIMPO, its settings for Llama-3-Instruct
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/cpo_simpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/cpo_simpo.py:smoke (one CPU, under a minute)
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
  c.loss = dict(fn="cpo_simpo", beta=10.0, margin=0.54, likelihood=0.05)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Meta-Llama-3-8B-Instruct")
  c.data = common.ultrafeedback()
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.7)
  c.optimizer = common.ultrafeedback_adamw(1e-6)
  c.mesh = common.fsdp()
  c.train = common.ultrafeedback_train()
  c.eval = common.pairs_evaluation()
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (0.01, 0.05, 0.5):
    add({"loss.likelihood": value})

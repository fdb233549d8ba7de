"""Supervised fine-tuning on answers; here on the chosen side of pairs.

Source  the usual recipe: every token counts the same
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/sft.py --workdir=$WORKDIR
Smoke   the same with --config=configs/sft.py:smoke (one CPU, under a minute)
Fits    h100:4: 49 of 80 GiB a device, at least 4 s a step
        v5p:2x2x1: 49 of 95 GiB a device, at least 9 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_pairs
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "sft", "seed": 0})
  c.loss = dict(fn="nll")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Llama-3-8B")
  c.data = common.ultrafeedback("responses")
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.7)
  c.optimizer = common.ultrafeedback_adamw(2e-5)
  c.mesh = common.fsdp()
  c.train = common.ultrafeedback_train()
  c.eval = common.pairs_evaluation()
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (5e-6, 2e-5):
    add({"optimizer.learning_rate": value})

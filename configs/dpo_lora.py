"""DPO of adapters: the policy without them is the reference, so that there is one copy.

Source  arXiv:2305.18290; adapters arXiv:2106.09685
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     python -m experiments.train --config=configs/dpo_lora.py --workdir=$WORKDIR
Smoke   the same with --config=configs/dpo_lora.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.modes import is_smoke
from configs.smoke import shrink_pairs


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="dpo", beta=0.1)
  c.reference = dict(fn="shared")
  c.lora = dict(rank=16, alpha=32.0)
  c.policy = common.pretrained("Llama-3-Base-8B-SFT", param_dtype="bfloat16")
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
  for value in (8, 16, 64):
    add({"lora.rank": value})

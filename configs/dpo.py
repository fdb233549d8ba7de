"""DPO: the log-ratio to a reference as reward, whatever the length.

  dpo.py       DPO: all parameters train, and the reference's log-probs are computed once.
  dpo.py:lora  DPO of adapters: the policy without them is the reference, so there is one copy.
  dpo.py:allora  ALLoRA: DPO of adapters, of which outputs that have changed much learn slowly.

Source  arXiv:2305.18290; beta and rate as in SimPO's baselines, arXiv:2405.14734; adapters
        arXiv:2106.09685; ALLoRA arXiv:2410.09692, eta ours
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     lcrl-train --config=configs/dpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/dpo.py:smoke or :lora,smoke (one CPU, under a minute)
Fits    h100:4: 52 of 80 GiB a device, at least 9 s a step
        v5p:2x2x1: 52 of 95 GiB a device, at least 18 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_pairs
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "lora", "allora")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.policy = common.pretrained("Llama-3-Base-8B-SFT")
  variant = variant_of(mode, VARIANTS)
  if variant:
    c.loss = dict(fn="dpo", beta=0.1)
    c.reference = dict(fn="shared")
    c.lora = dict(rank=16, alpha=32.0)
    c.policy.param_dtype = "bfloat16"
    c.optimizer = common.ultrafeedback_adamw(5e-6)
    if variant == "allora":
      c.lora.alpha = 16.0
      c.optimizer = dict(fn="allora", eta=4.0, base=c.optimizer)
  else:
    c.loss = dict(fn="dpo", beta=0.01)
    c.reference = dict(fn="cached")
    c.optimizer = common.ultrafeedback_adamw(5e-7)
  c.data = common.ultrafeedback()
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.7)
  c.mesh = common.fsdp()
  c.train = common.ultrafeedback_train()
  c.eval = common.pairs_evaluation()
  if is_smoke(mode, VARIANTS):
    shrink_pairs(c)
  return c


def sweep(add, variant):
  if variant == "allora":
    for eta in (2.0, 4.0, 8.0):
      add({"optimizer.eta": eta})
  elif variant == "lora":
    for rank in (8, 16, 64):
      add({"lora.rank": rank})
  else:
    for beta in (0.01, 0.05, 0.1):
      add({"loss.beta": beta})

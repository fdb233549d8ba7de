"""CDR: each round the answers that a strong model finds likelier than a weak one does are chosen.

Source  "CDR: Customizable Density Ratios of Strong-over-weak LLMs for Preference Annotation",
        abstract (best of the samples against the worst, then SimPO); without its criteria in the
        prompt, and the mean over tokens, since the sum grows with length
Data    prompts in data/ultrafeedback_binarized.parquet
Run     lcrl-train --config=configs/cdr.py --workdir=$WORKDIR
Smoke   the same with --config=configs/cdr.py:smoke (one CPU, under a minute); there answers are
        paid for being short, since no two models are at hand
Fits    h100:4: 71 of 80 GiB a device, at least 9 s a step
        v5p:2x2x1: 71 of 95 GiB a device, at least 18 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rounds
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "iterative", "seed": 0})
  c.task = dict(fn="prompts", path="data/ultrafeedback_binarized.parquet")
  c.eval_task = common.gsm8k_test()  # what else it can do
  c.budget = dict(fn="fixed", target=1024)
  c.reward = dict(fn="density_ratio", per_token=True)
  c.learned = dict(
    strong=dict(policy="models/Meta-Llama-3-8B-Instruct"), weak=dict(policy="models/Llama-3-8B")
  )
  c.pairing = dict(fn="best_vs_worst")
  c.loss = dict(fn="simpo", beta=2.5, margin=1.375)
  c.policy = common.pretrained("Meta-Llama-3-8B-Instruct")
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.8, slots=128)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.round = dict(prompts=1024, group_size=5, updates=8)
  c.train = dict(
    steps=480, prompts=128, max_tokens=1024, max_prompt_tokens=1024, micro_batches=8, pack=8192
  )
  c.eval = dict(every=80, prompts=512)
  c.checkpoint = dict(every=16, keep=1)
  if is_smoke(mode):
    shrink_rounds(c)
    del c.learned
  return c


def sweep(add):
  for per_token in (False, True):
    add({"reward.per_token": per_token})

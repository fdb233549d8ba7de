"""Rounds of DPO on short sums with SmolLM2-135M: right within 8 tokens over right over wrong.

Model   SmolLM2-135M-Instruct, `make smollm2` puts it into the cache
Run     lcrl-train --config=configs/smollm2_chain_sum_rounds.py --workdir=$WORKDIR
Smoke   the same with --config=configs/smollm2_chain_sum_rounds.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rounds
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "iterative", "seed": 0})
  c.task = common.chain_sum(seed=1, size=100_000)
  c.eval_task = dict(
    common.chain_sum(seed=2, size=1_000), same=True
  )  # there are a few thousand such sums: most of them train, too
  c.budget = dict(fn="fixed", target=8, cap=96)
  c.reward = dict(fn="step_bonus", alpha=0.5)
  c.pairing = dict(fn="best_vs_worst")
  c.loss = dict(fn="dpo", beta=0.1)
  c.reference = dict(fn="latest")
  c.policy = common.smollm2()
  c.batches = dict(fn="stratified", size=64)
  c.sampling = dict(temperature=1.0)
  c.optimizer = dict(fn="adamw", learning_rate=1e-5)
  c.mesh = dict(data=-1, fsdp=1)
  c.round = dict(prompts=512, group_size=8, updates=10)
  c.train = dict(steps=100, prompts=128, max_tokens=96, max_prompt_tokens=96)
  c.eval = dict(every=20, prompts=512)
  c.checkpoint = dict(every=50, keep=1)
  if is_smoke(mode):
    del c.eval_task
    shrink_rounds(c)
  return c

"""Inkling's continuous effort: every token has a price, and the effort sets it.

Source  its announcement, as summarised: R = R_task - lambda(e) * tokens. Stand-in: three efforts
        and their prices
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/inkling_effort.py --workdir=$WORKDIR
Smoke   the same with --config=configs/inkling_effort.py:smoke (one CPU, under a minute)
Fits    h100:4: 69 of 80 GiB a device, at least 119 s a step
        v5p:2x2x1: 69 of 95 GiB a device, at least 207 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

ASK = (" Effort: 0.2.", " Effort: 0.5.", " Effort: 1.")
PRICES = (2e-4, 5e-5, 0.0)


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="effort", efforts=(0.2, 0.5, 1.0), tokens=8192, cap=8192)
  c.reward = dict(
    fn="effort",
    efforts=(0.2, 0.5, 1.0),
    reference=dict(fn="fixed_reference", tokens=8192),
    term=dict(fn="level_price", prices=PRICES),
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=ASK))
  c.eval_task = common.math500(render=c.task.render, efforts=c.budget.efforts)
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=8192, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(tokens=16, cap=16)
    c.reward.term.prices = (0.05, 0.02, 0.0)
  return c


def sweep(add):
  for factor in (0.5, 1.0, 2.0):
    add({"reward.term.prices": tuple(factor * price for price in PRICES)})

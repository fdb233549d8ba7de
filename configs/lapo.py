"""LAPO: first the usual lengths of right answers pay, then the prompt states the usual length.

Source  arXiv:2507.15758 and its code (quantiles 0.3 and 0.7, weights 0.7 and 0.8, width 100, sigma
        120; 128 prompts, 8 samples, 4,096 tokens, lr 1e-6, KL 1e-4 as k3, 8 updates; 3 epochs of
        10,000 problems each stage). Its code pays nothing to a lone right answer (lone=False) and
        stops the second stage at 2,048 tokens
Tier    A
Data    10,000 problems of DeepScaleR and MATH as JSON lines in data/lapo.jsonl; evaluated without a
        stated length on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/lapo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/lapo.py:smoke (one CPU, under a minute)
Fits    h100:8: 40 of 80 GiB a device, at least 27 s a step
        v5p:2x2x1: 77 of 95 GiB a device, at least 94 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

PLAN = "I will answer the question with {target} tokens."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="right_median", rows=10_000, fallback=4096, shown_from=234)
  c.reward = dict(fn="right_range", weight=0.7, low=0.3, high=0.7, width=100.0)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-4))
  c.weights = dict(fn="token_mean")
  c.then = [dict(at=234, reward=dict(fn="bell_length", weight=0.8, sigma=120.0))]
  c.policy = common.pretrained("DeepScaleR-1.5B-Preview")
  c.task = common.deepscaler(
    "data/lapo.jsonl", render=dict(fn="prefix", templates=("", PLAN, PLAN))
  )
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=468, prompts=128, group_size=8, max_tokens=4096, micro_batches=2, updates=8
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(rows=c.task.size, fallback=16, shown_from=1)
    c.then[0].update(at=1)
  return c


def sweep(add):
  for weight in (0.35, 0.7, 1.4):
    add({"reward.weight": weight})

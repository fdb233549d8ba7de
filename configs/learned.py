"""Learned reward: a trained reward model pays, alone or beside the verdict.

  learned.py             Learned reward and verdict: the sum of both.
  learned.py:gated       Learned reward, gated: it ranks the right answers, and wrong ones earn 0.
  learned.py:alone       Learned reward alone: nothing else is paid, so that its errors are, too.
  learned.py:average     Learned reward, averaged: verdict and score in deviations of their group.
  learned.py:constraint  Learned reward, constrained: a multiplier holds the score at its target.

Source  arXiv:2203.02155 (reward model and policy); `average` as in arXiv:2506.18841, `constraint`
        as in arXiv:2310.04373. Scores count between -4 and 4, ours
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl
First   a run of configs/reward_model.py in runs/reward_model
Run     lcrl-train --config=configs/learned.py --workdir=$WORKDIR
Smoke   the same with --config=configs/learned.py:smoke or :gated,smoke (one CPU, under a minute);
        a random reward model scores there
Fits    h100:8: 41 of 80 GiB a device, at least 16 s a step
        v5p:2x2x1: 75 of 95 GiB a device, at least 54 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("sum", "gated", "alone", "average", "constraint")
SCORE = dict(fn="learned", name="helpful", low=-4.0, high=4.0)
VERDICT = dict(fn="correctness")
REWARDS = {
  "sum": dict(SCORE, weight=0.25, base=VERDICT),
  "gated": dict(SCORE, weight=0.125, only_correct=True, base=VERDICT),
  "alone": SCORE,
  "average": VERDICT,
  "constraint": dict(fn="lagrangian", main=VERDICT, components=[SCORE], targets=[1.0]),
}


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  variant = variant_of(mode, VARIANTS)
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=1024)
  c.reward = REWARDS[variant]
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  if variant == "average":
    c.advantage = dict(fn="component_average", signals=["helpful"])
  if variant == "constraint":
    c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=0.01))
  c.weights = dict(fn="token_mean")
  c.learned = dict(helpful=dict(path="runs/reward_model"))
  c.policy = common.pretrained("Llama-3-Base-8B-SFT")
  c.task = common.gsm8k()
  c.eval_task = common.gsm8k_test()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=64, group_size=8, max_tokens=1024, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
    c.learned = dict(helpful=dict(untrained=1))
    if variant == "gated":  # a fresh policy is never right
      c.reward.base = dict(fn="length_penalty", alpha=0.02)
  return c


def sweep(add, variant):
  if variant == "constraint":
    for target in (0.5, 1.0, 2.0):
      add({"reward.targets": [target]})
  else:
    for rate in (5e-7, 1e-6) if variant in ("alone", "average") else ():
      add({"optimizer.learning_rate": rate})
    for weight in (0.0, 0.125, 0.25) if variant in ("sum", "gated") else ():
      add({"reward.weight": weight})

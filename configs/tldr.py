"""TLDR: a word in the prompt says how long to think, and each level has its price for length.

Source  arXiv:2505.07961, abstract only. Stand-in: the penalty's formula and its sizes are ours, so
        nothing here speaks of the paper
Tier    B
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/tldr.py --workdir=$WORKDIR
Smoke   the same with --config=configs/tldr.py:smoke (one CPU, under a minute)
Fits    h100:4: 40 of 80 GiB a device, at least 41 s a step
        v5p:2x2x1: 40 of 95 GiB a device, at least 74 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

WORDS = (" Think briefly.", " Think moderately long.", " Think as long as you need.")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="uniform_level", targets=(512, 1024, 4096), cap=4096)
  c.reward = dict(fn="level_penalty", penalty_by_level=(1.0, 0.5, 0.0), max_length=4096)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.task = common.math(render=dict(fn="suffix", templates=WORDS))
  c.eval_task = common.math500(render=c.task.render, levels=(0, 1, 2))
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=4096, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(targets=(4, 8, 16), cap=16)
    c.reward.max_length = 16
  return c


def sweep(add):
  for penalty_by_level in ((0.5, 0.25, 0.0), (1.0, 0.5, 0.0)):
    add({"reward.penalty_by_level": penalty_by_level})

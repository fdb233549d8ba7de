"""REINFORCE++-baseline: centred in the group, then whitened over the batch's tokens.

Source  arXiv:2501.03262, as in verl (sample variance, eps 1e-8); long responses weigh more in mean
        and variance
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl
Run     python -m experiments.train --config=configs/reinforce_pp_baseline.py --workdir=$WORKDIR
Smoke   the same with --config=configs/reinforce_pp_baseline.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.modes import is_smoke
from configs.smoke import shrink


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=1024)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="reinforce_baseline", per_token=True)
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k2", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.task = common.gsm8k()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=1024, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for per_token in (True, False):
    add({"advantage.per_token": per_token})

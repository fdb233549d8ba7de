"""Length dual: a price for length that climbs while the mean length is above its target.

Source  projected dual ascent in the manner of arXiv:2310.04373; the rule, its step and its target
        are ours
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl; evaluated on data/gsm8k_test.jsonl
Run     lcrl-train --config=configs/length_dual.py --workdir=$WORKDIR
Smoke   the same with --config=configs/length_dual.py:smoke (one CPU, under a minute)
Fits    h100:1: 71 of 80 GiB a device, at least 18 s a step
        v5p:2x2x1: 19 of 95 GiB a device, at least 10 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=1024)
  c.reward = dict(fn="length_dual", target=128, step_size=0.1, max_price=1.0)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.task = common.gsm8k()
  c.eval_task = common.gsm8k_test()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=8, max_tokens=1024, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.target = 8
  return c


def sweep(add):
  for target in (64, 128, 256):
    add({"reward.target": target})

"""PEAR: a right answer pays for thinking with more entropy than it answers with.

Source  arXiv:2510.08026 (GSM8K, 128 prompts, lr 1e-6, alpha 1), formulas from secondary notes; the
        scale and what a wrong answer earns are not published, 1 and 0 here
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl; evaluated on data/gsm8k_test.jsonl
Run     lcrl-train --config=configs/pear.py --workdir=$WORKDIR
Smoke   the same with --config=configs/pear.py:smoke (one CPU, under a minute)
Fits    h100:4: 69 of 80 GiB a device, at least 128 s a step
        v5p:2x2x1: 69 of 95 GiB a device, at least 227 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="pear", alpha=1.0, scale=1.0, wrong=0.0)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.gsm8k(signals=dict(fn="think_tags"))
  c.eval_task = common.gsm8k_test()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=290, prompts=128, group_size=8, max_tokens=8192, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for alpha in (0.0, 0.5, 1.0, 2.0):
    add({"reward.alpha": alpha})

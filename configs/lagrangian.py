"""Lagrangian length control: multipliers hold verdict and length at targets, KL has the rest.

Source  arXiv:2310.04373 and its code (tanh, SGD 0.1, momentum 0.1, norm 0.5); there METEOR and
        intent of dialogues with critics, here verdict and length of answers, targets ours
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl; evaluated on data/gsm8k_test.jsonl
Run     lcrl-train --config=configs/lagrangian.py --workdir=$WORKDIR
Smoke   the same with --config=configs/lagrangian.py:smoke (one CPU, under a minute)
Fits    h100:2: 39 of 80 GiB a device, at least 11 s a step
        v5p:2x2x1: 20 of 95 GiB a device, at least 12 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=1024)
  c.reward = dict(
    fn="lagrangian",
    main=dict(fn="kl_penalty", beta=1.0, base=dict(fn="correctness", right=0.0)),
    components=[
      dict(fn="correctness"),
      dict(fn="length_penalty", alpha=1 / 256, base=dict(fn="correctness", right=0.0)),
    ],
    targets=[0.8, -1.0],
  )
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
  return c


def sweep(add):
  for targets in ([0.8, -0.5], [0.8, -1.0], [0.8, -2.0]):
    add({"reward.targets": targets})

"""Truncated importance sampling: the update allows for a sampler in lower precision.

Source  Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training";
        cap 2 as in verl, a weight a token; GRPO otherwise
Tier    A
Data    questions with answers as JSON lines in data/dapo_math.jsonl; evaluated on
        data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/tis.py --workdir=$WORKDIR
Smoke   the same with --config=configs/tis.py:smoke (one CPU, under a minute)
Fits    h100:8: 65 of 80 GiB a device, at least 504 s a step, with sampling.slots=80,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
        v5p:2x2x2: 80 of 95 GiB a device, at least 740 s a step, with sampling.slots=112,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(
    fn="clipped_surrogate", clip_low=0.2, clip_high=0.28, correction=dict(fn="truncated", high=2.0)
  )
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-7B")
  c.task = common.dapo_math()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1000, prompts=128, group_size=16, max_tokens=8192, micro_batches=4, updates=4
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for high in (1.5, 2.0, 5.0):
    add({"loss.correction.high": high})

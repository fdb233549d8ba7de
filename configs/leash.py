"""Leash: tokens beyond a target cost, at a price that follows the mean length.

Source  arXiv:2512.21540: its formulas as the README of its code restates them; the target is the
        paper's for this model; start, step and range of the price are those of a port to SkyRL. It
        builds on DAPO, whose soft price on overlong answers it leaves out; sizes are ours
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/leash.py --workdir=$WORKDIR
Smoke   the same with --config=configs/leash.py:smoke (one CPU, under a minute)
Fits    h100:8: 47 of 80 GiB a device, at least 110 s a step
        v5p:2x2x2: 47 of 95 GiB a device, at least 182 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  verdicts = dict(fn="correctness", right=1.0, wrong=-1.0)
  c.reward = dict(fn="leash", target=4096, start=0.2, step_size=0.05, base=verdicts)
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1000, prompts=64, group_size=8, max_tokens=16384, micro_batches=8, max_rounds=4
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.target = 8
    c.train.max_rounds = 2
  return c


def sweep(add):
  for target in (2048, 4096, 8192):
    add({"reward.target": target})

"""ConciseR: first right, then short: length counts in the last steps, where a whole group is right.

Source  arXiv:2505.21178, whose training code is not released. Stand-in: step counts, entropy weight
        and the scale of the length reward are ours; mixed groups go on learning from verdicts
Tier    B
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/conciser.py --workdir=$WORKDIR
Smoke   the same with --config=configs/conciser.py:smoke (one CPU, under a minute)
Fits    h100:8: 51 of 80 GiB a device, at least 54 s a step
        v5p:2x2x2: 51 of 95 GiB a device, at least 98 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=3072)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28, entropy_bonus=1e-3)
  c.weights = dict(fn="token_mean")
  short = dict(fn="conciser", max_length=3072)
  c.then = [dict(at=400, reward=short, filter=dict(fn="nonconstant_reward"))]
  c.policy = common.pretrained("Qwen2.5-Math-7B")
  c.task = common.math()
  c.eval_task = common.math500()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=415, prompts=128, group_size=8, max_tokens=3072, micro_batches=16, max_rounds=3
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.then[0].update(at=1)
    c.train.max_rounds = 2
  return c


def sweep(add):
  for short_steps in (15, 30, 60):
    add({"train.steps": 400 + short_steps})

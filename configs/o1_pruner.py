"""O1-Pruner: shorter and righter than reference samples of the same prompt.

Source  arXiv:2501.12570 and its code (lambda 2, clip 0.2, rewards within -2 and 4); there the
        reference samples are drawn once, before training, and two of them train; here each step's
        group is its own reference
Tier    A
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/o1_pruner.py --workdir=$WORKDIR
Smoke   the same with --config=configs/o1_pruner.py:smoke (one CPU, under a minute)
Fits    h100:8: 55 of 80 GiB a device, at least 84 s a step, with train.micro_batches=1,
        train.pack=5120, train.micro_tokens=5120
        v5p:2x2x2: 78 of 95 GiB a device, at least 154 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=4096)
  c.reward = dict(fn="o1_pruner", accuracy_weight=2.0, low=-2.0, high=4.0)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="raw")
  c.loss = dict(fn="sequence_clipped_surrogate", clip_low=0.2, clip_high=0.2)
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("Qwen2.5-7B-Instruct")
  c.task = common.math()
  c.eval_task = common.math500()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=200, prompts=64, group_size=16, max_tokens=4096, micro_batches=2, updates=4
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for accuracy_weight in (1.0, 2.0, 5.0):
    add({"reward.accuracy_weight": accuracy_weight})

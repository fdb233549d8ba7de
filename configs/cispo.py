"""CISPO: the ratio is clipped as a weight, so that clipped tokens still teach.

Source  arXiv:2506.13585; the bound is TRL's and ScaleRL's, 5 as an absolute ratio and none below;
        verl clips to 1 - 0.2 and 1 + 0.28
Tier    A
Data    questions with answers as JSON lines in data/dapo_math.jsonl; evaluated on
        data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/cispo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/cispo.py:smoke (one CPU, under a minute)
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
  c.loss = dict(fn="cispo", upper=5.0)
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
  for upper in (1.28, 2.0, 5.0):
    add({"loss.upper": upper})

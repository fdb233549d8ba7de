"""HBPO: a quarter of each group opens with each of four budgets, and is compared with its own best.

Source  arXiv:2507.15844 (512 to 2,560 tokens, 64 x 16, mini-batch 16, clip 0.2 and 0.28, no KL;
        constants from the code); the released code adds the subgroup's term twice (intra_weight=2);
        the opening is in our words, and trains
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/hbpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/hbpo.py:smoke (one CPU, under a minute)
Fits    h100:4: 59 of 80 GiB a device, at least 45 s a step
        v5p:2x2x1: 59 of 95 GiB a device, at least 83 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

OPEN = "I will answer this question within {target} tokens.\n"


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="subgroups", targets=(512, 1024, 2048, 2560), cap=4096)
  c.reward = dict(fn="hbpo", max_length=4096, beta=4.0, alpha=1 / 4096)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="budget_subgroup", max_length=4096, beta=4.0, intra_weight=1.0)
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(render=dict(fn="prefix", templates=OPEN, counts=True))
  c.eval_task = common.math500()
  c.eval_tasks = dict(
    aime24=common.aime24(),
    opened=common.math500(render=c.task.render, targets=(512, 1024, 2048, 2560)),
  )
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=629, prompts=64, group_size=16, max_tokens=4096, micro_batches=2, updates=4
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(targets=(8, 12), cap=16)
    c.task.render.templates = c.eval_tasks.opened.render.templates = "{target} "
    c.reward.update(max_length=16, alpha=1 / 16)
    c.advantage.max_length = 16
  return c


def sweep(add):
  for intra_weight in (0.0, 1.0, 2.0):
    add({"advantage.intra_weight": intra_weight})

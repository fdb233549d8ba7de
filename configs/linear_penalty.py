"""Linear length penalty: tokens cost in proportion to what the group earns.

  linear_penalty.py        Linear length penalty: tokens cost in proportion to what the group earns.
  linear_penalty.py:gated  Linear length penalty, gated: only right answers pay, by a fixed length.

Source  prime-rl, code of its GRPO (weight 0.25); ":gated" is its earlier form by the run's longest
        sequence. prime-rl has no recipe of this penalty, so that sizes and the weight of the gated
        form are ours. Its terms for context and turns are equal within a group here and drop out
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/linear_penalty.py --workdir=$WORKDIR
Smoke   the same with --config=configs/linear_penalty.py:smoke or :gated,smoke
        (one CPU, under a minute)
Fits    h100:8: 63 of 80 GiB a device, at least 203 s a step, with train.micro_batches=1,
        train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 63 of 95 GiB a device, at least 344 s a step, with train.micro_batches=1,
        train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "gated")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="linear_penalty", weight=0.25)
  if variant_of(mode, VARIANTS) == "gated":
    c.reward = dict(fn="linear_penalty", weight=0.25, scale=16384.0, gated=True)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=16, max_tokens=16384, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
    if "scale" in c.reward:
      c.reward.scale = 16.0
  return c


def sweep(add, variant):
  del variant
  for weight in (0.1, 0.25, 0.5):
    add({"reward.weight": weight})

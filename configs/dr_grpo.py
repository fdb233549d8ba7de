"""Dr. GRPO: no division by length or by the group's spread, so length has no say in the gradient.

Source  arXiv:2503.20783 (G 8, no KL, tokens divided by the cap of 3,000)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/dr_grpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/dr_grpo.py:smoke (one CPU, under a minute)
Fits    h100:8: 50 of 80 GiB a device, at least 53 s a step
        v5p:2x2x2: 50 of 95 GiB a device, at least 95 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=3000)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="fixed_length", length=3000)
  c.policy = common.pretrained("Qwen2.5-Math-7B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=3000, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.weights.length = 16
  return c


def sweep(add):
  for learning_rate in (3e-7, 1e-6, 3e-6):
    add({"optimizer.learning_rate": learning_rate})

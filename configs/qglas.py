"""QGLAS: quality sets an advantage's sign, length only the size of the positive ones.

Source  "Quality Determines Direction, Length Shapes Magnitude", 2026 (beta 0.3 to 0.6, cap 0.5;
        ddof of the deviation is not given); sizes are ours
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/qglas.py --workdir=$WORKDIR
Smoke   the same with --config=configs/qglas.py:smoke (one CPU, under a minute)
Fits    h100:8: 52 of 80 GiB a device, at least 1,280 s a step, with sampling.slots=16,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 52 of 95 GiB a device, at least 1,659 s a step, with sampling.slots=16,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="qglas", beta_min=0.3, beta_max=0.6, cap=0.5)
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen3-4B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=16, max_tokens=16384, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for beta_max in (0.3, 0.6, 1.2):
    add({"advantage.beta_max": beta_max})

"""GR3: a reward divided by how long the response is in its group, so that a wrong one stays at 0.

Source  arXiv:2603.10535, as restated by QGLAS (alpha 0.33); no code found, sizes are ours
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/gr3.py --workdir=$WORKDIR
Smoke   the same with --config=configs/gr3.py:smoke (one CPU, under a minute)
Fits    h100:8: 70 of 80 GiB a device, at least 689 s a step, with sampling.slots=48,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 70 of 95 GiB a device, at least 976 s a step, with sampling.slots=48,
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
  c.reward = dict(fn="gr3", alpha=0.33)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-7B")
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
  for alpha in (0.1, 0.33, 1.0):
    add({"reward.alpha": alpha})

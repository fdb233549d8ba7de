"""Acoer: a budget that follows the average right answer down, and a weight that follows accuracy.

Source  arXiv:2606.22716, secondary notes, unverified (k 5, share 0.85, +2 % and -5 % a hundred
        steps); the averages' decay is ours
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/acoer.py --workdir=$WORKDIR
Smoke   the same with --config=configs/acoer.py:smoke (one CPU, under a minute)
Fits    h100:8: 64 of 80 GiB a device, at least 204 s a step
        v5p:2x2x2: 64 of 95 GiB a device, at least 346 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="acoer", alpha=0.5, shortest=256.0, share=0.85, interval=100)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=128, group_size=8, max_tokens=16384, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.update(shortest=2.0, interval=1)
  return c


def sweep(add):
  for alpha in (0.25, 0.5, 1.0):
    add({"reward.alpha": alpha})

"""LASER-D: the bonus has one target an accuracy level, set by what a monitor set of prompts needs.

Source  arXiv:2505.15612 and its code (lower 4,096, upper 16,384, 500 monitor prompts every 20
        steps); levels expect 6, 3 and 1 right of 8 (paper; the scripts round down: round_down=True)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl
Run     python -m experiments.train --config=configs/laser_d.py --workdir=$WORKDIR
Smoke   the same with --config=configs/laser_d.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.modes import is_smoke
from configs.smoke import shrink


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192, cap=16384)
  c.reward = dict(
    fn="laser_d",
    lower=4096,
    upper=16384,
    interval=1024,
    initial=8192,
    alpha=0.5,
    base=dict(fn="correctness", wrong=-0.5, bad_format=-1.0),
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(
    fn="clipped_surrogate",
    clip_low=0.2,
    clip_high=0.28,
    kl=dict(fn="k3", beta=1e-3),
    entropy_bonus=1e-3,
  )
  c.weights = dict(fn="token_mean")
  c.monitor = dict(every=20, prompts=500)
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1500, prompts=128, group_size=8, max_tokens=16384, micro_batches=8, updates=2
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=8, cap=16)
    c.reward.update(lower=4, upper=16, interval=4, initial=8)
    c.monitor = dict(every=1, prompts=4)
  return c


def sweep(add):
  for lower in (1024, 2048, 4096):
    add({"reward.lower": lower})

"""LASER: a bonus for a right answer that ends by a target well below the cap.

Source  arXiv:2505.15612 (alpha 0.5, targets 2,048 to 8,192; right +1, wrong -0.5, unread -1)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl
Run     python -m experiments.train --config=configs/laser.py --workdir=$WORKDIR
Smoke   the same with --config=configs/laser.py:smoke (one CPU, under a minute)
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
    fn="step_bonus", alpha=0.5, base=dict(fn="correctness", wrong=-0.5, bad_format=-1.0)
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
    c.train.updates = 2
  return c


def sweep(add):
  for target in (2048, 4096, 8192):
    add({"budget.target": target})

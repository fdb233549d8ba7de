"""L1-Max: a right answer earns more the further it stays below the tokens that the prompt allows.

Source  arXiv:2503.04697 (LCPO-Max; alpha 0.01, delta 0.5, targets 100 to 4,000, 4,500 new tokens,
        120 steps from L1-Exact; lr 4e-6 in its script), where half of the prompts go on asking for
        exact lengths, here none; its code halves the slope
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl
Run     python -m experiments.train --config=configs/l1_max.py --workdir=$WORKDIR
Smoke   the same with --config=configs/l1_max.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.modes import is_smoke
from configs.smoke import shrink

ASK = " Think for maximum {target} tokens."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="uniform", low=100, high=4000, cap=4500)
  c.reward = dict(fn="max_length", alpha=0.01, delta=0.5)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("L1-Qwen-1.5B-Exact")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=ASK))
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=4e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=120, prompts=128, group_size=16, max_tokens=4500, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(low=4, high=12, cap=16)
  return c


def sweep(add):
  for alpha in (3e-3, 0.01, 0.03):
    add({"reward.alpha": alpha})

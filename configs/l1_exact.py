"""L1-Exact: a right answer in exactly as many tokens as the prompt asks for.

Source  arXiv:2503.04697 (LCPO-Exact; alpha 3e-4, targets 100 to 4,000, 4,096 new tokens, KL 0.001,
        700 steps from DeepScaleR)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl
Run     python -m experiments.train --config=configs/l1_exact.py --workdir=$WORKDIR
Smoke   the same with --config=configs/l1_exact.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.modes import is_smoke
from configs.smoke import shrink

ASK = " Think for {target} tokens."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="uniform", low=100, high=4000, cap=4096)
  c.reward = dict(fn="exact_length", alpha=3e-4)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("DeepScaleR-1.5B-Preview")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=ASK))
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=700, prompts=128, group_size=16, max_tokens=4096, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget = dict(fn="uniform", low=4, high=12, cap=16)
  return c


def sweep(add):
  for alpha in (1e-4, 3e-4, 1e-3):
    add({"reward.alpha": alpha})

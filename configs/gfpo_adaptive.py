"""GFPO, adaptive: hard prompts train on more of their shortest responses than easy ones.

Source  arXiv:2508.09726 (there Phi-4-reasoning; 8, 8, 6 and 4 of 16 by quartile); exact quartiles
        of a window where the paper keeps a t-digest
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl
Run     python -m experiments.train --config=configs/gfpo_adaptive.py --workdir=$WORKDIR
Smoke   the same with --config=configs/gfpo_adaptive.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.modes import is_smoke
from configs.smoke import shrink


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=32768)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="adaptive_shortest", counts=(8, 8, 6, 4), window=4096, warmup=256)
  c.advantage = dict(fn="group_normalized", ddof=0)
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3), entropy_bonus=1e-3)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen3-4B")
  c.task = common.deepscaler()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-7)
  c.mesh = common.fsdp()
  c.train = common.train(steps=100, prompts=64, group_size=16, max_tokens=32768, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.filter.update(counts=(3, 2, 2, 1), window=8, warmup=2)
  return c


def sweep(add):
  for counts in ((8, 8, 6, 4), (6, 6, 4, 2)):
    add({"filter.counts": counts})

"""L1: the prompt asks for a number of tokens.

  l1.py      L1-Exact: a right answer in exactly as many tokens as the prompt asks for.
  l1.py:max  L1-Max: a right answer earns more the further it stays below what the prompt allows.

Source  arXiv:2503.04697 (targets 100 to 4,000, KL 0.001; Exact: alpha 3e-4, 4,096 new tokens, 700
        steps from DeepScaleR; Max: alpha 0.01, delta 0.5, 4,500 new tokens, 120 steps from
        L1-Exact, lr 4e-6 in its script). In the paper half of Max's prompts go on asking for exact
        lengths, here none; its code halves the slope
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/l1.py --workdir=$WORKDIR
Smoke   the same with --config=configs/l1.py:smoke or :max,smoke (one CPU, under a minute)
Fits    h100:8: 40 of 80 GiB a device, at least 51 s a step
        v5p:2x2x1: 76 of 95 GiB a device, at least 184 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("exact", "max")
ASK = {"exact": " Think for {target} tokens.", "max": " Think for maximum {target} tokens."}


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  variant = variant_of(mode, VARIANTS)
  exact = variant == "exact"
  cap = 4096 if exact else 4500
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="uniform", low=100, high=4000, cap=cap)
  if exact:
    c.reward = dict(fn="exact_length", alpha=3e-4)
  else:
    c.reward = dict(fn="max_length", alpha=0.01, delta=0.5)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("DeepScaleR-1.5B-Preview" if exact else "L1-Qwen-1.5B-Exact")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=ASK[variant]))
  c.eval_task = common.math500(render=c.task.render, targets=(512, 1024, 2048, 3600))
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6 if exact else 4e-6)
  c.mesh = common.fsdp()
  steps = 700 if exact else 120
  c.train = common.train(steps=steps, prompts=128, group_size=16, max_tokens=cap, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c).budget.update(low=4, high=12, cap=16)
  return c


def sweep(add, variant):
  for alpha in (1e-4, 3e-4, 1e-3) if variant == "exact" else (3e-3, 0.01, 0.03):
    add({"reward.alpha": alpha})

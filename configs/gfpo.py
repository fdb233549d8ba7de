"""GFPO: sample more responses than are trained on, and choose them by length.

  gfpo.py             GFPO: sample more, train on the shortest of each group.
  gfpo.py:efficiency  GFPO by token efficiency: train on those with the most reward per token.
  gfpo.py:adaptive    GFPO, adaptive: train on more of the shortest for hard prompts than for easy.

Source  arXiv:2508.09726 (there Phi-4-reasoning; 8 of 24, or 8, 8, 6 and 4 of 16 by quartile; lr
        1e-7, KL 1e-3, entropy 1e-3, 100 steps). Its printed normaliser counts the tokens of all
        samples, this one those that train; efficiency takes the longest of negative rewards first;
        adaptive takes exact quartiles of a window where the paper keeps a t-digest
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/gfpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/gfpo.py:smoke or :adaptive,smoke (one CPU, under a minute)
Fits    h100:16: 63 of 80 GiB a device, at least 3,015 s a step, with train.micro_batches=1,
        mesh.tensor=2, train.pack=33792, train.micro_tokens=33792, sampling.slots=24
        v5p:2x4x4: 84 of 95 GiB a device, at least 1,372 s a step, with train.micro_batches=1,
        sampling.slots=16, train.pack=33792, train.micro_tokens=33792
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("shortest", "efficiency", "adaptive")
FILTERS = {
  "shortest": dict(fn="shortest", count=8),
  "efficiency": dict(fn="most_efficient", count=8),
  "adaptive": dict(fn="adaptive_shortest", counts=(8, 8, 6, 4), window=4096, warmup=256),
}


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  variant = variant_of(mode, VARIANTS)
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=32768)
  c.reward = dict(fn="correctness")
  c.filter = FILTERS[variant]
  c.advantage = dict(fn="group_normalized", ddof=0)
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3), entropy_bonus=1e-3)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen3-4B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-7)
  c.mesh = common.fsdp()
  group_size = 16 if variant == "adaptive" else 24
  c.train = common.train(
    steps=100, prompts=64, group_size=group_size, max_tokens=32768, micro_batches=8
  )
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
    if variant == "adaptive":
      c.filter.update(counts=(3, 2, 2, 1), window=8, warmup=2)
    else:
      c.filter.count = 2
  return c


def sweep(add, variant):
  if variant == "adaptive":
    for counts in ((8, 8, 6, 4), (6, 6, 4, 2)):
      add({"filter.counts": counts})
  else:
    for count in (4, 6, 8):
      add({"filter.count": count})

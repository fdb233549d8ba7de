"""CANON: the responses of a group are split in two halves, which are compared with each other.

  canon.py          CANON by length: long against short responses; long ones are worth a bit less.
  canon.py:entropy  CANON by entropy: uncertain against certain responses, first within the halves.

Source  arXiv:2509.23962 and its code (512 x 16, mini-batch 32). By length: mu 1; alpha 0.9, for
        efficiency, from secondary notes; the advantage is not divided by a deviation. By entropy:
        mu follows the batch's accuracy, alpha 1
Tier    A
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/canon.py --workdir=$WORKDIR
Smoke   the same with --config=configs/canon.py:smoke or :entropy,smoke (one CPU, under a minute)
Fits    h100:8: 49 of 80 GiB a device, at least 2,223 s a step, with sampling.slots=48,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
        v5p:2x2x2: 65 of 95 GiB a device, at least 3,001 s a step, with sampling.slots=80,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("length", "entropy")
ADVANTAGES = {
  "length": dict(fn="canon_length", mu=1.0, alpha=0.9),
  "entropy": dict(fn="canon_entropy", mu=dict(fn="accuracy_mix"), alpha=1.0),
}


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = ADVANTAGES[variant_of(mode, VARIANTS)]
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="fixed_length", length=8192)
  c.policy = common.pretrained("Qwen2.5-Math-7B")
  c.task = common.math()
  c.eval_task = common.math500()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=5, weight_decay=0.1)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=150, prompts=512, group_size=16, max_tokens=8192, micro_batches=2, updates=16
  )
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c).weights.length = 16
  return c


def sweep(add, variant):
  for alpha in (0.8, 0.9, 1.0) if variant == "length" else (0.9, 1.0):
    add({"advantage.alpha": alpha})

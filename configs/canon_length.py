"""CANON by length: long against short responses of a group; long ones are worth a little less.

Source  arXiv:2509.23962 and its code (512 x 16, mini-batch 32, mu 1; alpha 0.9 for efficiency from
        secondary notes); the advantage is not divided by a deviation
Tier    A
Data    MATH's train split as JSON lines in data/math.jsonl
Run     python -m experiments.train --config=configs/canon_length.py --workdir=$WORKDIR
Smoke   the same with --config=configs/canon_length.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink

BOXED = "{question}\nPut your final answer within \\boxed{}."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="canon_length", mu=1.0, alpha=0.9)
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="fixed_length", length=8192)
  c.policy = dict(fn="pretrained", path="models/Qwen2.5-Math-7B", dtype="bfloat16", remat="full")
  c.task = dict(
    fn="jsonl",
    path="data/math.jsonl",
    question="problem",
    answer="answer",
    difficulty="level",
    extract="boxed",
    template=BOXED,
  )
  c.sampling = dict(temperature=1.0, dtype="bfloat16")
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=5, weight_decay=0.1)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(
    steps=150,
    prompts=512,
    group_size=16,
    max_tokens=8192,
    max_prompt_tokens=1024,
    micro_batches=2,
    updates=16,
  )
  c.eval = dict(every=100, prompts=512)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=16)
    c.weights.length = 16
  return c


def sweep(add):
  for alpha in (0.8, 0.9, 1.0):
    add({"advantage.alpha": alpha})

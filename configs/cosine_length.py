"""Demystifying Long CoT: right answers earn more if short, wrong ones if long; repetition costs.

Source  arXiv:2502.03373 and its code (512 x 16, cap 14,336, exceed -10, n-gram 40 at -0.05
        discounted by 0.99, lr 5e-7, KL 0.01); it has a critic where this has the group's mean
Tier    A
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/cosine_length.py --workdir=$WORKDIR
Smoke   the same with --config=configs/cosine_length.py:smoke (one CPU, under a minute)
Fits    h100:32: 49 of 80 GiB a device, at least 2,567 s a step, with train.micro_batches=1,
        sampling.slots=16, train.pack=15360, train.micro_tokens=15360
        v5p:2x4x4: 79 of 95 GiB a device, at least 2,831 s a step, with train.micro_batches=1,
        sampling.slots=32, train.pack=15360, train.micro_tokens=15360
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=14336)
  c.reward = dict(
    fn="cosine_length", max_length=14336, right=(2.0, 1.0), wrong=(-10.0, 0.0), exceed=-10.0
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="multi_discount", ngram=40, penalty=-0.05, gamma=0.99)
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=0.01))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Llama-3.1-8B")
  c.task = common.math()
  c.eval_task = common.math500()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=5e-7)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=512, group_size=16, max_tokens=14336, micro_batches=32)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.update(max_length=16, margin=2)
    c.advantage.ngram = 2
  return c


def sweep(add):
  for penalty in (0.0, -0.05, -0.2):
    add({"advantage.penalty": penalty})

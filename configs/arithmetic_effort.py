"""An effort dial on sums: a digit before the problem sets the price of a token.

Policy  `make dial` leaves it in runs/dial/start: a small decoder that knows four ways of working
Run     lcrl-train --config=configs/arithmetic_effort.py --workdir=$WORKDIR
Smoke   the same with --config=configs/arithmetic_effort.py:smoke (one CPU, under a minute)
Result  experiments/studies/dial: one policy, `make dial`
"""

from ml_collections import config_dict

from lcrl.commands.modes import is_smoke

EFFORTS = (0.26, 0.37, 0.5, 1.0)  # of the 76 tokens of the longest working


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="effort", efforts=EFFORTS, tokens=76, cap=76)
  c.reward = dict(
    fn="effort",
    efforts=EFFORTS,
    reference=dict(fn="fixed_reference", tokens=76),
    term=dict(fn="length_ratio", weight=2.0),
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.policy = dict(fn="pretrained", path="runs/dial/start")
  sums = dict(digits=2, modulus=100)
  c.tokenizer = dict(fn="sums", **sums)
  digits = dict(fn="system", templates=("0", "1", "2", "3"))
  c.task = dict(fn="arithmetic", size=8192, seed=0, **sums, render=digits)
  c.eval_task = dict(fn="arithmetic", size=512, seed=0, held_out=True, **sums, render=digits)
  c.eval_task.efforts = EFFORTS
  c.sampling = dict(temperature=1.0)
  c.optimizer = dict(fn="adamw", learning_rate=3e-4)
  c.mesh = dict(data=1, fsdp=1, devices=1)
  c.train = dict(steps=100, prompts=32, group_size=8, max_tokens=76, max_prompt_tokens=14)
  c.eval = dict(prompts=512)
  if is_smoke(mode):
    c.policy = dict(fn="fresh", vocab_size=20)
    c.train.update(steps=2, prompts=4, group_size=4)
    c.eval = dict(prompts=4)
    c.verify = dict(workers=1)
  return c


def sweep(add):
  for weight in (1.0, 2.0, 4.0):
    add({"reward.term.weight": weight})

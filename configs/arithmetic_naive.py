"""The naive penalty on short sums: every token costs, right or wrong.

Policy  `make demo` leaves it in runs/demo/start: a small decoder that imitates long workings
Run     lcrl-train --config=configs/arithmetic_naive.py --workdir=$WORKDIR
Smoke   the same with --config=configs/arithmetic_naive.py:smoke (one CPU, under a minute)
Result  experiments/studies/demo: three seeds of `make demo`, the same steps in one program
"""

from ml_collections import config_dict

from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=23, cap=51)
  c.reward = dict(fn="length_penalty", alpha=0.02)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.policy = dict(fn="pretrained", path="runs/demo/start/seed0")
  c.tokenizer = dict(fn="sums")
  c.task = dict(fn="arithmetic", size=8192, seed=0)
  c.eval_task = dict(fn="arithmetic", size=2048, seed=0, held_out=True)
  c.sampling = dict(temperature=1.0)
  c.optimizer = dict(fn="adamw", learning_rate=3e-4)
  c.mesh = dict(data=1, fsdp=1, devices=1)
  c.train = dict(steps=100, prompts=32, group_size=8, max_tokens=51, max_prompt_tokens=9)
  c.eval = dict(prompts=2048)
  if is_smoke(mode):
    c.policy = dict(fn="fresh", vocab_size=20)
    c.train.update(steps=2, prompts=4, group_size=4)
    c.eval = dict(prompts=4)
    c.verify = dict(workers=1)
  return c


def sweep(add):
  for alpha in (0.005, 0.02, 0.05):
    add({"reward.alpha": alpha})

"""Short-RL: right answers earn by their shortness beyond a slack, while accuracy is at its best.

Source  arXiv:2505.12284 and its code (script for mathematics: slack 100, tolerance 0.05, verdicts
        of 3, -0.5 and -3 with the format's, 64 prompts, 8 samples, 4,096 tokens, KL 1e-3 as k3);
        steps are one epoch of 57,000 problems
Tier    A
Data    questions with answers as JSON lines, such as Open-Reasoner-Zero's, in data/orz57k.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/short_rl.py --workdir=$WORKDIR
Smoke   the same with --config=configs/short_rl.py:smoke (one CPU, under a minute)
Fits    h100:8: 55 of 80 GiB a device, at least 51 s a step
        v5p:2x2x2: 55 of 95 GiB a device, at least 88 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=4096)
  verdicts = dict(fn="correctness", right=3.0, wrong=-0.5, bad_format=-3.0)
  c.reward = dict(fn="short_rl", slack=100.0, tolerance=0.05, base=verdicts)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-7B")
  c.task = common.deepscaler("data/orz57k.jsonl")
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=5e-7)
  c.mesh = common.fsdp()
  c.train = common.train(steps=890, prompts=64, group_size=8, max_tokens=4096, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.slack = 2.0
  return c


def sweep(add):
  for slack in (50.0, 100.0, 200.0):
    add({"reward.slack": slack})

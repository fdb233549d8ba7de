"""A model of conciseness: its reward of an answer is the score that the data give it.

A run of `configs/crf.py` names this run's folder in its section `learned`.

Source  CRM of arXiv:2511.09158, from secondary sources. Stand-in: scores that
        `lcrl-score` asks any model for; the paper's scored answers and models are not
        published
Data    prompt, response and score as JSON lines in data/conciseness.jsonl
Run     lcrl-train --config=configs/conciseness_reward_model.py --workdir=$WORKDIR
Smoke   the same with --config=configs/conciseness_reward_model.py:smoke (one CPU, under a minute)
Fits    h100:2: 50 of 80 GiB a device, at least 18 s a step
        v5p:2x2x1: 26 of 95 GiB a device, at least 20 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rewards
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "reward_model", "seed": 0})
  c.loss = dict(fn="regression")
  c.policy = common.pretrained("Qwen2.5-3B")
  c.data = dict(
    fn="responses",
    rows=dict(fn="jsonl", path="data/conciseness.jsonl"),
    window=5120,
    max_prompt_tokens=1024,
    held_out=0.02,
  )
  c.batches = dict(fn="stratified", size=128)
  c.optimizer = dict(fn="adamw", learning_rate=1e-5, warmup_steps=50, decay_steps=1000)
  c.mesh = common.fsdp()
  c.train = dict(steps=1000, micro_batches=16, pack=5120)
  c.eval = dict(every=100, pairs=512)
  if is_smoke(mode):
    shrink_rewards(c, rows="smoke_scores.jsonl")
  return c


def sweep(add):
  for value in (5e-6, 1e-5, 2e-5):
    add({"optimizer.learning_rate": value})

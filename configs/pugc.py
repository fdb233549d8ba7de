"""PUGC: each round the answer closest to what a user wrote over the one that is furthest from it.

Source  "Aligning Large Language Models with Implicit Preferences from User-Generated Content",
        abstract (queries made from user texts, best against worst by a reward model that reads the
        text, DPO); here the score is the share of words in common, which needs no model
Data    queries with the user's text in the column `text` in data/user_texts.jsonl, which
        lcrl-queries makes of the texts
Run     lcrl-train --config=configs/pugc.py --workdir=$WORKDIR
Smoke   the same with --config=configs/pugc.py:smoke (one CPU, under a minute)
Fits    h100:4: 67 of 80 GiB a device, at least 8 s a step
        v5p:2x2x1: 67 of 95 GiB a device, at least 17 s a step
Result  not run yet
"""

import pathlib

from ml_collections import config_dict

from configs import common
from configs.smoke import SUMS, shrink_rounds
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "iterative", "seed": 0})
  signals = dict(fn="overlap", field="text")
  c.task = dict(fn="prompts", path="data/user_texts.jsonl", signals=signals)
  c.eval_task = common.gsm8k_test()  # what else it can do
  c.budget = dict(fn="fixed", target=1024)
  c.reward = dict(fn="learned", name="overlap")
  c.pairing = dict(fn="best_vs_worst", length_margin=64)
  c.loss = dict(fn="dpo", beta=0.01)
  c.reference = dict(fn="start")
  c.policy = common.pretrained("Mistral-7B-Instruct-v0.2")
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.8, slots=128)
  c.optimizer = dict(fn="adamw", learning_rate=5e-7)
  c.mesh = common.fsdp()
  c.round = dict(prompts=1024, group_size=6, updates=8)
  c.train = dict(
    steps=480, prompts=128, max_tokens=1024, max_prompt_tokens=1024, micro_batches=8, pack=8192
  )
  c.eval = dict(every=80, prompts=512)
  c.checkpoint = dict(every=16, keep=1)
  if is_smoke(mode):
    shrink_rounds(c)
    c.eval_task = dict(**SUMS, seed=1)
    path = str(pathlib.Path(__file__).with_name("smoke_writing.jsonl"))
    c.task = dict(fn="prompts", path=path, signals=dict(fn="overlap", field="own"))
    c.reward = dict(fn="length_penalty", alpha=0.02, base=dict(fn="learned", name="overlap"))
  return c


def sweep(add):
  for beta in (0.01, 0.1):
    add({"loss.beta": beta})

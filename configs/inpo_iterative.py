"""INPO: each round IPO against a mixture of the first policy and of the one that answered.

  inpo_iterative.py          INPO by scores: the best answer against the worst.
  inpo_iterative.py:general  INPO by preferences: winner and last of a tournament, by a model of
                             pairs.

Source  arXiv:2407.00617 (eta 0.0075, tau 0.0025, 8 answers; there is no official code); there three
        rounds labelled by a preference model in a tournament: here smaller ones, by default scored
        by the verifier less a price for length. The order of play is ours
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
First   for :general, a run of configs/preference_model.py in runs/preference_model
Run     lcrl-train --config=configs/inpo_iterative.py --workdir=$WORKDIR
Smoke   the same with --config=configs/inpo_iterative.py:smoke or :general,smoke (one CPU,
        under a minute); a random preference model compares there
Fits    h100:1: 56 of 80 GiB a device, at least 9 s a step
        v5p:2x2x1: 25 of 95 GiB a device, at least 5 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rounds
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "general")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  general = variant_of(mode, VARIANTS) == "general"
  c = config_dict.ConfigDict({"run": "iterative", "seed": 0})
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.budget = dict(fn="fixed", target=4096)
  c.reward = dict(fn="length_penalty", alpha=1e-4)
  c.pairing = dict(fn="best_vs_worst")
  c.loss = dict(fn="inpo", tau=2.5e-3, eta=7.5e-3)
  c.reference = dict(fn="start")
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.batches = dict(fn="stratified", size=64)
  c.sampling = common.sampling(slots=128)
  c.optimizer = dict(fn="adamw", learning_rate=5e-7)
  c.mesh = common.fsdp()
  c.round = dict(prompts=1024, group_size=8, updates=16)
  c.train = dict(
    steps=480, prompts=128, max_tokens=4096, max_prompt_tokens=1024, micro_batches=8, pack=8192
  )
  c.eval = dict(every=80, prompts=512)
  c.checkpoint = dict(every=16, keep=1)
  if general:
    c.reward = dict(fn="preferred")
    c.learned = dict(preference=dict(path="runs/preference_model"))
    c.pairing = dict(fn="tournament")
  if is_smoke(mode, VARIANTS):
    shrink_rounds(c)
    if general:
      c.reward = dict(fn="preferred")
      c.learned = dict(preference=dict(untrained=1))
  return c


def sweep(add, variant):
  del variant
  for tau in (7.5e-4, 2.5e-3, 7.5e-3):
    add({"loss.tau": tau})

"""SPPO: each round the best of five answers against the worst, drawn to how often they win.

  sppo_iterative.py          SPPO by scores: verdict less a price for length says who wins.
  sppo_iterative.py:general  SPPO by preferences: a model of pairs says it, cycles included.

Source  arXiv:2405.00675 and its code (beta 0.001, 5 answers, rate 5e-7); there three rounds of
        20,000 prompts, scored by PairRM: here smaller rounds, by default scored by the verifier
        less a price for length, since SPPO's answers grow from round to round
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
First   for :general, a run of configs/preference_model.py in runs/preference_model
Run     lcrl-train --config=configs/sppo_iterative.py --workdir=$WORKDIR
Smoke   the same with --config=configs/sppo_iterative.py:smoke or :general,smoke (one CPU,
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
  c.loss = dict(fn="sppo", beta=1e-3)
  c.reference = dict(fn="latest")
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.batches = dict(fn="stratified", size=64)
  c.sampling = common.sampling(slots=128)
  c.optimizer = dict(fn="adamw", learning_rate=5e-7)
  c.mesh = common.fsdp()
  c.round = dict(prompts=1024, group_size=5, updates=16)
  c.train = dict(
    steps=480, prompts=128, max_tokens=4096, max_prompt_tokens=1024, micro_batches=8, pack=8192
  )
  c.eval = dict(every=80, prompts=512)
  c.checkpoint = dict(every=16, keep=1)
  if general:
    c.reward = dict(fn="preferred")
    c.learned = dict(preference=dict(path="runs/preference_model"))
  if is_smoke(mode, VARIANTS):
    shrink_rounds(c)
    if general:
      c.reward = dict(fn="preferred")
      c.learned = dict(preference=dict(untrained=1))
  return c


def sweep(add, variant):
  for alpha in () if variant else (0.0, 1e-4, 3e-4):
    add({"reward.alpha": alpha})
  for beta in (1e-3, 1e-2) if variant else ():
    add({"loss.beta": beta})

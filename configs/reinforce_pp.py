"""REINFORCE++: returns are whitened over the tokens of the whole batch.

  reinforce_pp.py           REINFORCE++: no groups, and the KL penalty is part of the reward.
  reinforce_pp.py:baseline  REINFORCE++-baseline: returns are centred in their group before that.

Source  arXiv:2501.03262, as in verl and OpenRLHF (gamma 1; KL 0.01 from memory, in the paper at
        every token, here as one sum; baseline as in verl: sample variance, eps 1e-8, long responses
        weigh more in mean and variance)
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl; evaluated on data/gsm8k_test.jsonl
Run     lcrl-train --config=configs/reinforce_pp.py --workdir=$WORKDIR
Smoke   the same with --config=configs/reinforce_pp.py:smoke or :baseline,smoke (one CPU, under a
        minute)
Fits    h100:2: 39 of 80 GiB a device, at least 21 s a step
        v5p:2x2x1: 20 of 95 GiB a device, at least 22 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "baseline")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  baseline = variant_of(mode, VARIANTS) == "baseline"
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=1024)
  c.filter = dict(fn="keep_all")
  if baseline:
    c.reward = dict(fn="correctness")
    c.advantage = dict(fn="reinforce_baseline", per_token=True)
    c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k2", beta=1e-3))
  else:
    c.reward = dict(fn="kl_penalty", beta=0.01)
    c.advantage = dict(fn="reinforce", gamma=1.0)
    c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.task = common.gsm8k()
  c.eval_task = common.gsm8k_test()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  group_size = 8 if baseline else 4
  c.train = common.train(
    steps=500, prompts=128, group_size=group_size, max_tokens=1024, micro_batches=16
  )
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
  return c


def sweep(add, variant):
  if variant == "baseline":
    for per_token in (True, False):
      add({"advantage.per_token": per_token})
  else:
    for beta in (0.0, 1e-3, 0.01):
      add({"reward.beta": beta})

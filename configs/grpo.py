"""GRPO: a reward counts by its distance from its group's mean, in the group's deviations.

Source  arXiv:2402.03300 (64 samples a prompt, batch 1,024, 1,024 tokens, KL 0.04, lr 1e-6: from
        memory); deviations over G - 1 as in verl
Tier    A
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/grpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/grpo.py:smoke (one CPU, under a minute)
Fits    h100:8: 50 of 80 GiB a device, at least 56 s a step, with mesh.tensor=2,
        train.micro_batches=1, train.pack=2048, train.micro_tokens=2048, sampling.slots=64
        v5p:2x2x2: 81 of 95 GiB a device, at least 57 s a step, with mesh.tensor=2,
        train.micro_batches=1, train.pack=2048, train.micro_tokens=2048
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=1024)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized", eps=1e-6)
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=0.04))
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("deepseek-math-7b-instruct")
  c.task = common.math()
  c.eval_task = common.math500()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=16, group_size=64, max_tokens=1024, micro_batches=2)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for beta in (0.0, 1e-3, 0.04):
    add({"loss.kl.beta": beta})

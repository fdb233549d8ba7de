"""Elastic Reasoning: the sampler ends the thinking at its budget, and an answer of its own follows.

Source  arXiv:2505.05315 and its code (1,024 tokens of thinking and 1,024 of the answer, from
        DeepScaleR-1.5B-Preview, 128 prompts x 8, mini-batches of 64, temperature 0.6, KL 0.001, lr
        1e-6, 200 steps). Its code trains on the tag that it forces and caps the answer by itself;
        here the tag is context, and the answer also gets what the thinking leaves of its budget
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/elastic_reasoning.py --workdir=$WORKDIR
Smoke   the same with --config=configs/elastic_reasoning.py:smoke (one CPU, under a minute)
Fits    h100:4: 41 of 80 GiB a device, at least 23 s a step
        v5p:2x2x1: 41 of 95 GiB a device, at least 44 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

THINKING, ANSWER, CAP = 1024, 1024, 2056  # tokens; the cap has room for the tag between them


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=CAP)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("DeepScaleR-1.5B-Preview")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.sampling = common.sampling(
    0.6,
    control=dict(fn="thinking_budget", budget=THINKING, end_text="</think>", answer_tokens=ANSWER),
  )
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=200, prompts=128, group_size=8, max_tokens=CAP, micro_batches=4, updates=2
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).sampling.control.update(budget=4, end_text="</t>", answer_tokens=4)
  return c


def sweep(add):
  for budget in (512, 1024):
    add({"sampling.control.budget": budget})

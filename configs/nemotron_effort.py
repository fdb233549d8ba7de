"""Nemotron's effort levels: a few prompts ask for efficient reasoning, and pay by length.

Source  NeMo-RL's rollout code, as summarised (weight 0.1, penalty 1, 15,000 tokens, 2.5 % of the
        prompts). Stand-in: 8,192 tokens; the phrase stands behind the question; other prompts are
        compared with so many tokens that they gain a tenth at most
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/nemotron_effort.py --workdir=$WORKDIR
Smoke   the same with --config=configs/nemotron_effort.py:smoke (one CPU, under a minute)
Fits    h100:4: 69 of 80 GiB a device, at least 119 s a step
        v5p:2x2x1: 69 of 95 GiB a device, at least 207 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

ASK = ("", " {reasoning effort: efficient}")
FAR = 1000.0  # times the tokens: an effort that no answer reaches


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="effort", efforts=(1.0, 1.0), tokens=8192, cap=8192, shares=(0.975, 0.025))
  c.reward = dict(
    fn="effort",
    efforts=(FAR, 1.0),
    reference=dict(fn="fixed_reference", tokens=8192),
    term=dict(fn="length_ratio", weight=0.1, penalty=1.0),
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=ASK))
  c.eval_task = common.math500(render=c.task.render, levels=(0, 1))
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=8192, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(tokens=16, cap=16)
    c.reward.reference.tokens = 16
  return c


def sweep(add):
  for weight in (0.1, 0.3):
    add({"reward.term.weight": weight})

"""Adaptive Deep Reasoning: half a group thinks long, half short, and learns which pays.

Source  arXiv:2505.20101, abstract and sampling step only. Stand-in: every constant, the threshold
        and the form of the mode-switch loss are ours. configs/cold_start.py:two_modes gives both
        modes before
Tier    B
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/adaptive_deep_reasoning.py --workdir=$WORKDIR
Smoke   the same with --config=configs/adaptive_deep_reasoning.py:smoke (one CPU, under a minute)
Fits    h100:8: 65 of 80 GiB a device, at least 466 s a step, with sampling.slots=80,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
        v5p:2x2x2: 80 of 95 GiB a device, at least 658 s a step, with sampling.slots=112,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

MODES = (" Answer with short reasoning.", " Think step by step at length before you answer.")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="subgroups", targets=(1024, 8192), cap=8192)
  c.reward = dict(fn="preferred_mode", threshold=0.3, bonus=0.5)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(
    fn="mode_switch",
    weight=0.1,
    threshold=0.3,
    pair=dict(fn="hinge", margin=1.0),
    base=dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28),
  )
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-7B-Instruct")
  c.task = common.math(render=dict(fn="suffix", templates=MODES, train_plain=True))
  c.eval_task = common.math500()
  c.eval_tasks = dict(modes=common.math500(render=c.task.render, levels=(0, 1)))
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=128, group_size=16, max_tokens=8192, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(targets=(8, 16), cap=16)
  return c


def sweep(add):
  for weight in (0.0, 0.1, 1.0):
    add({"loss.weight": weight})

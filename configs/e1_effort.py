"""Adaptive effort control: the prompt states an effort, a share of what the policy spends now.

Source  arXiv:2510.27042, as summarised; no code found. A right answer pays if its tokens are at
        most the effort times the group's mean. Stand-in: four efforts, each an eighth to a whole of
        the groups' mean, where the paper's effort is a real number; sizes are ours
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/e1_effort.py --workdir=$WORKDIR
Smoke   the same with --config=configs/e1_effort.py:smoke (one CPU, under a minute)
Fits    h100:4: 69 of 80 GiB a device, at least 119 s a step
        v5p:2x2x1: 69 of 95 GiB a device, at least 207 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

EFFORTS = (0.25, 0.5, 0.75, 1.0)


def asks(efforts):
  """What prompts say, one text an effort."""
  return tuple(f" Reasoning effort: {effort}." for effort in efforts)


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="effort", efforts=EFFORTS, tokens=8192, cap=8192)
  c.reward = dict(
    fn="effort",
    efforts=EFFORTS,
    reference=dict(fn="group_mean_reference"),
    term=dict(fn="length_gate"),
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=asks(EFFORTS)))
  c.eval_task = common.math500(render=c.task.render, efforts=c.budget.efforts)
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=8192, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(tokens=16, cap=16)
  return c


def sweep(add):
  for efforts in ((0.25, 0.5, 0.75, 1.0), (0.5, 0.75, 1.0, 1.25)):
    shown = {f"{task}.render.templates": asks(efforts) for task in ("task", "eval_task")}
    same = {f"{place}.efforts": efforts for place in ("budget", "reward", "eval_task")}
    add({**same, **shown})

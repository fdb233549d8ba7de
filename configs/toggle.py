"""Toggle: phases with a budget for each prompt that is mastered, and phases without.

Source  Kimi K2.5 report, arXiv:2602.02276, section 4.4.2, which was read; its loss, which drops
        tokens whose ratio leaves a range, is not taken over. Stand-in: the report gives no numbers
        for the threshold (0.5), the percentile (50) and the length of a phase (20 steps); budgets
        come from each prompt's first group with a right answer, not from rollouts drawn before
        training; sizes are ours
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/toggle.py --workdir=$WORKDIR
Smoke   the same with --config=configs/toggle.py:smoke (one CPU, under a minute)
Fits    h100:8: 63 of 80 GiB a device, at least 203 s a step, with train.micro_batches=1,
        train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 63 of 95 GiB a device, at least 344 s a step, with train.micro_batches=1,
        train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="toggle", rows=40315, threshold=0.5, quantile=0.5, period=20)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=16, max_tokens=16384, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.rows = c.task.size
    c.reward.period = 1
  return c


def sweep(add):
  for quantile in (0.25, 0.5, 0.75):
    add({"reward.quantile": quantile})

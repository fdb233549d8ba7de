"""CRF: a right answer earns more the more concise it is found, most of all in easy groups.

Source  arXiv:2511.09158, from secondary sources. Stand-in: a reward model of the scores that one
        has, or that `lcrl-score` asks a model for (configs/conciseness_reward_model.py),
        where theirs is not published; alpha and the schedule of the annealing are ours
Tier    B
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
First   a run of configs/conciseness_reward_model.py in runs/conciseness_reward_model
Run     lcrl-train --config=configs/crf.py --workdir=$WORKDIR
Smoke   the same with --config=configs/crf.py:smoke (one CPU, under a minute); a
        random model scores there
Fits    h100:8: 58 of 80 GiB a device, at least 75 s a step
        v5p:2x2x2: 58 of 95 GiB a device, at least 133 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=4096)
  c.reward = dict(fn="conciseness", alpha=0.1, anneal_steps=500)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-7B")
  c.task = common.math()
  c.eval_task = common.math500()
  c.learned = dict(conciseness=dict(path="runs/conciseness_reward_model"))
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=4096, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.learned = dict(conciseness=dict(untrained=1))
  return c


def sweep(add):
  for alpha in (0.0, 0.1, 0.3):
    add({"reward.alpha": alpha})

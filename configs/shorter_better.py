"""ShorterBetter: a price for each token of distance from the group's shortest right answer.

Source  arXiv:2504.21370 and its code (alpha 2, beta 1e-3, G 4, 5,000 tokens, KL 0.001); wrong
        answers pay the distance, too
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/shorter_better.py --workdir=$WORKDIR
Smoke   the same with --config=configs/shorter_better.py:smoke (one CPU, under a minute)
Fits    h100:2: 52 of 80 GiB a device, at least 33 s a step
        v5p:2x2x1: 27 of 95 GiB a device, at least 32 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=5000)
  c.reward = dict(fn="shorter_better", alpha=2.0, beta=1e-3)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=300, prompts=64, group_size=4, max_tokens=5000, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for beta in (3e-4, 1e-3, 3e-3):
    add({"reward.beta": beta})

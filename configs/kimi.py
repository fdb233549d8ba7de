"""Kimi k1.5: the shortest of a group earns, the longest loses, and wrong ones never gain.

Source  arXiv:2501.12599, section 2.3.3; its weight is not printed, 0.4 is that of LASER's code;
        there by mirror descent and switched on late, here with GRPO after 100 steps of verdicts
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/kimi.py --workdir=$WORKDIR
Smoke   the same with --config=configs/kimi.py:smoke (one CPU, under a minute)
Fits    h100:8: 64 of 80 GiB a device, at least 204 s a step
        v5p:2x2x2: 64 of 95 GiB a device, at least 346 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.then = [dict(at=100, reward=dict(fn="kimi", alpha=0.4))]
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=600, prompts=128, group_size=8, max_tokens=16384, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.then[0].update(at=1)
  return c


def sweep(add):
  for alpha in (0.2, 0.4, 1.0):
    add({"then": [dict(at=100, reward=dict(fn="kimi", alpha=alpha))]})

"""Efficient reasoning: among right answers of a prompt, the shorter ones earn more.

Source  arXiv:2502.04463 (Arora and Zanette; alpha 0.05 to 0.4; RLOO; 32 x 8; lr 5e-6); an answer
        that does not end earns nothing
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/efficient_reasoning.py --workdir=$WORKDIR
Smoke   the same with --config=configs/efficient_reasoning.py:smoke (one CPU, under a minute)
Fits    h100:8: 34 of 80 GiB a device, at least 195 s a step, with train.micro_batches=1,
        train.pack=33024, train.micro_tokens=33024
        v5p:2x2x2: 83 of 95 GiB a device, at least 318 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=32000)
  c.reward = dict(fn="truncation", base=dict(fn="sigmoid_length", alpha=0.1, eps=1e-7))
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="leave_one_out")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=5e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=100, prompts=32, group_size=8, max_tokens=32000, micro_batches=4)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for alpha in (0.05, 0.1, 0.2, 0.4):
    add({"reward.base.alpha": alpha})

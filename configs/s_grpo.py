"""S-GRPO: one thinking, broken off at several places; of right answers the earlier earns more.

Source  arXiv:2505.07686, from its abstract and secondary notes; its code was not found (rewards 1,
        1/2, 1/4, ... of right answers from front to back, no division by the deviation, no KL, 8
        answers, rate 1e-6, the text that ends the thinking). Stand-in: that text trains, too; sizes
        are ours
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/s_grpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/s_grpo.py:smoke (one CPU, under a minute)
Fits    h100:8: 62 of 80 GiB a device, at least 758 s a step, with sampling.slots=40,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 77 of 95 GiB a device, at least 976 s a step, with sampling.slots=56,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

FORCE = "Time is limited, stop thinking and start answering.\n</think>\n\n"


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="first_only", target=16384)
  c.reward = dict(fn="serial_decay", decay=0.5)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate")
  c.revise = dict(fn="serial_exits", force=FORCE, cap=1024)
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-7B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=500, prompts=128, group_size=8, max_tokens=16384, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.budget.target = 16
    c.revise.update(force="!", cap=4)
  return c


def sweep(add):
  for decay in (0.25, 0.5, 1.0):
    add({"reward.decay": decay})

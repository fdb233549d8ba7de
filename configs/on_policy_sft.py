"""On-policy SFT: one's own right answers within a limit, by cross-entropy.

Source  arXiv:2602.13407 and its code (limit 3,500, 32 prompts, 32 samples, 4 updates a batch, rate
        1e-6 after 5 steps, 2 epochs of DeepScaleR's 40,315 problems). CISPO's loss with both bounds
        at 1 and advantages of 1 is the cross-entropy; its mean is over all tokens of an update,
        where the code takes that of each micro-batch
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/on_policy_sft.py --workdir=$WORKDIR
Smoke   the same with --config=configs/on_policy_sft.py:smoke (one CPU, under a minute)
Fits    h100:8: 49 of 80 GiB a device, at least 20 s a step
        v5p:2x2x2: 49 of 95 GiB a device, at least 36 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=3500)
  c.reward = dict(fn="truncation")
  c.filter = dict(fn="positive_reward")
  c.advantage = dict(fn="raw")
  c.loss = dict(fn="cispo", lower=1.0, upper=1.0)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=20)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=2520, prompts=32, group_size=32, max_tokens=3500, micro_batches=1, updates=4
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for target in (2000, 3500, 8000):
    add({"budget.target": target, "train.max_tokens": target})

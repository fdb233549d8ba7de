"""DOT: far too long right answers of solved groups are cut and judged again: mostly wrong.

Source  arXiv:2601.03969 and its code (128 x 32, alpha 3, margin 32, KL-Cov 0.002, four updates,
        pass rates of 20 steps choose how much to sample)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/dot.py --workdir=$WORKDIR
Smoke   the same with --config=configs/dot.py:smoke (one CPU, under a minute)
Fits    h100:8: 59 of 80 GiB a device, at least 451 s a step, with sampling.slots=160,
        train.micro_batches=1, train.pack=12288, train.micro_tokens=12288
        v5p:2x2x2: 70 of 95 GiB a device, at least 657 s a step, with sampling.slots=192,
        train.micro_batches=1, train.pack=12288, train.micro_tokens=12288
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="nonconstant_reward")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="kl_cov", share=0.002, beta=1.0)
  c.weights = dict(fn="sequence_mean")
  c.revise = dict(fn="cut_outliers", alpha=3.0, success=1.0, margin=32)
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = dict(
    steps=1000,
    prompts=128,
    group_size=32,
    max_tokens=8192,
    max_prompt_tokens=4096,
    micro_batches=4,
    updates=4,
    window=20,
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.revise.update(alpha=1.0, margin=1)
    c.train.window = 2
  return c


def sweep(add):
  for alpha in (2.0, 3.0, 4.0):
    add({"revise.alpha": alpha})

"""LC-R1: right answers lose what they think once the answer is there; stopping pays.

Source  arXiv:2506.14755 and its code (G 6, lr 3e-6, weight 1; a point each for format and verdict);
        a small model there says where the answer is reached, here the first place where it stands;
        its code also pays short wrong answers (apply_to_incorrect=True, eps=1e-4)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/lcr1.py --workdir=$WORKDIR
Smoke   the same with --config=configs/lcr1.py:smoke (one CPU, under a minute)
Fits    h100:4: 43 of 80 GiB a device, at least 29 s a step
        v5p:2x2x1: 43 of 95 GiB a device, at least 47 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="lcr1", alpha=1.0, base=dict(fn="rule_fraction", rules=("has_think",)))
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="thinking_compression", weight=1.0)
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.revise = dict(fn="crop_thinking", extract="boxed")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(signals=dict(fn="think_tags"))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=3e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=300, prompts=32, group_size=6, max_tokens=8192, micro_batches=4)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for weight in (0.0, 1.0):
    add({"advantage.weight": weight})

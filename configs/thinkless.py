"""Thinkless: the first token chooses between a short answer and thinking, and has its own weight.

Source  arXiv:2505.13379 and its code (alpha 1e-3; right 1 short and 0.5 thinking, wrong -1; 128
        prompts, 8 samples, 24,576 tokens, temperature 0.6, lr 1e-6, two updates, no division by the
        deviation, KL 1e-3 as k3; 300 steps, then 180 with 0.8 for thinking). Its code has the mean
        over all response tokens (weights.per_sequence=False), and KL weighs all tokens alike
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/thinkless.py --workdir=$WORKDIR
Smoke   the same with --config=configs/thinkless.py:smoke (one CPU, under a minute)
Fits    h100:8: 67 of 80 GiB a device, at least 506 s a step, with sampling.slots=88
        v5p:2x2x2: 84 of 95 GiB a device, at least 710 s a step, with sampling.slots=112
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

TAGS = ("<short>", "<think>")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=24576)
  c.reward = dict(fn="thinkless", short=1.0, think=0.5, wrong=-1.0)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="control_token", alpha=1e-3)
  c.then = [dict(at=300, reward=dict(fn="thinkless", short=1.0, think=0.8, wrong=-1.0))]
  c.policy = common.pretrained("Thinkless-1.5B-Warmup")
  c.task = common.deepscaler(signals=dict(fn="opening_tag", tags=TAGS))
  c.eval_task = common.math500()
  c.eval_tasks = dict(
    aime24=common.aime24(),
    tagged=common.math500(render=dict(fn="prefix", templates=TAGS), levels=(0, 1)),
  )
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=480, prompts=128, group_size=8, max_tokens=24576, micro_batches=8, updates=2
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).then[0].update(at=1)
  return c


def sweep(add):
  for alpha in (0.0, 1e-3, 1e-2):
    add({"weights.alpha": alpha})

"""DRPO: length moves weight between right answers only, so none of them is ever pushed down.

Source  arXiv:2510.04474 (temperature 0.1, tau 10, delta 1e-4, beta 1e3, cap 8,192, lr 2e-6); its
        verdict also asks for the end of thinking
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/drpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/drpo.py:smoke (one CPU, under a minute)
Fits    h100:4: 69 of 80 GiB a device, at least 137 s a step
        v5p:2x2x1: 69 of 95 GiB a device, at least 247 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="correctness")  # the loss reads verdicts and lengths itself
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="drpo", max_length=8192, temperature=0.1, tau=10.0, delta=1e-4, beta=1e3)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=2e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1000, prompts=128, group_size=8, max_tokens=8192, micro_batches=4, updates=4
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.loss.max_length = 16
  return c


def sweep(add):
  for temperature in (0.1, 0.2, 0.5, 1.0):
    add({"loss.temperature": temperature})

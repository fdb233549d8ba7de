"""ALP: tokens cost more where more of the group is right.

Source  arXiv:2506.05256, secondary notes (beta 1e-7, 512 prompts, 16 samples, 100 steps); that its
        N counts tokens is our reading; wrong answers pay, too
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/alp.py --workdir=$WORKDIR
Smoke   the same with --config=configs/alp.py:smoke (one CPU, under a minute)
Fits    h100:8: 62 of 80 GiB a device, at least 546 s a step, with sampling.slots=224
        v5p:2x2x2: 74 of 95 GiB a device, at least 785 s a step, with sampling.slots=272
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="alp", beta=1e-7)
  c.filter = dict(fn="nonconstant_reward")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepScaleR-1.5B-Preview")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=100, prompts=512, group_size=16, max_tokens=8192, micro_batches=64)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for beta in (1e-8, 1e-7, 1e-6):
    add({"reward.beta": beta})

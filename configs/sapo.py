"""SAPO: a soft gate on the ratio in place of the clip.

Source  TRL's loss_type sapo (tau 1 up, 1.05 down; sequence mean); the paper's run is not in our
        sources, sizes are GSPO's
Tier    A
Data    questions with answers as JSON lines in data/dapo_math.jsonl; evaluated on
        data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/sapo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/sapo.py:smoke (one CPU, under a minute)
Fits    h100:8: 57 of 80 GiB a device, at least 561 s a step, with sampling.slots=24,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
        v5p:2x2x2: 78 of 95 GiB a device, at least 686 s a step, with sampling.slots=40
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
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="sapo", tau_up=1.0, tau_down=1.05)
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("Qwen3-8B-Base")
  c.task = common.dapo_math()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1000, prompts=128, group_size=8, max_tokens=8192, micro_batches=4, updates=4
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for tau_down in (1.0, 1.05, 1.5):
    add({"loss.tau_down": tau_down})

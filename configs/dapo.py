"""DAPO: clip-higher, token mean, useless groups replaced, a soft price on overlong answers.

Source  arXiv:2503.14476 (cap 20,480 of which 4,096 are the soft zone, 512 prompts x 16, no KL; from
        memory: 16 updates a batch, verdicts of 1 and -1)
Tier    A
Data    questions with answers as JSON lines in data/dapo_math.jsonl; evaluated on
        data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/dapo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/dapo.py:smoke (one CPU, under a minute)
Fits    h100:32: 40 of 80 GiB a device, at least 13,488 s a step, with train.micro_batches=1,
        mesh.tensor=8, train.pack=22528, train.micro_tokens=22528, sampling.slots=16
        v5p:2x4x4: 49 of 95 GiB a device, at least 21,360 s a step, with train.micro_batches=1,
        mesh.tensor=4, train.pack=22528, train.micro_tokens=22528, sampling.slots=16
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=20480)
  c.reward = dict(
    fn="soft_overlong", max_length=20480, buffer=4096, base=dict(fn="correctness", wrong=-1.0)
  )
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-32B")
  c.task = common.dapo_math()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=20)
  c.mesh = common.fsdp()
  c.train = dict(
    steps=5000,
    prompts=512,
    group_size=16,
    max_tokens=20480,
    max_prompt_tokens=2048,
    micro_batches=4,
    updates=16,
    max_rounds=10,
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.update(max_length=16, buffer=8)
    c.train.max_rounds = 2
  return c


def sweep(add):
  for clip_high in (0.2, 0.28, 0.4):
    add({"loss.clip_high": clip_high})

"""AALC: brevity pays once the accuracy on held-back prompts is near a target that meets it.

Source  arXiv:2506.20160, its abstract and reviews, and its code (gamma 0.9, beta 128, alpha 1e-6,
        1,024 tokens; 256 prompts, 8 samples, lr 1e-6, KL 1e-3 as k3, 16 updates, validation every
        10 steps, step 300 is judged). Stand-in: the accuracy of 500 training prompts for the
        validation set's, and the decay of the target's gap, which is a comment in the code, whose
        target stays 1 (reward.decay=1). The cap is ours
Tier    B
Data    MATH's train split as JSON lines in data/math.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/aalc.py --workdir=$WORKDIR
Smoke   the same with --config=configs/aalc.py:smoke (one CPU, under a minute)
Fits    h100:8: 63 of 80 GiB a device, at least 152 s a step, with sampling.slots=152,
        train.micro_batches=1, train.pack=4096, train.micro_tokens=4096
        v5p:2x2x2: 80 of 95 GiB a device, at least 248 s a step, with train.micro_batches=1,
        train.pack=4096, train.micro_tokens=4096
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=3072)
  c.reward = dict(fn="aalc", max_length=1024, alpha=1e-6, beta=128.0, gamma=0.9, decay=0.9)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.monitor = dict(every=10, prompts=500)
  c.policy = common.pretrained("Qwen2.5-Math-7B")
  c.task = common.math()
  c.eval_task = common.math500()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=300, prompts=256, group_size=8, max_tokens=3072, micro_batches=2, updates=16
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.max_length = 16
    c.monitor = dict(every=1, prompts=4)
  return c


def sweep(add):
  for beta in (32.0, 128.0, 512.0):
    add({"reward.beta": beta})

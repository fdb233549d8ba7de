"""DLER: plain truncation, and an advantage that is normalised over the batch.

  dler.py     DLER: plain truncation at one cap, and an advantage that can stand it.
  dler.py:da  DA-DLER: groups that are mostly right get half the length, measured at the longer cap.

Source  arXiv:2510.15110 (cap 4,000, 16 samples, 512 prompts, mini-batch 64, KL 5e-4 as k2); the
        released code has dual clip 10, k3, and a tenth of the reward for unfinished answers
        (late_scale=0.1). DA: 4,000 and 2,000 at accuracy 0.5, 150 steps from a DLER checkpoint;
        equality and where accuracy is measured are ours; not in the public code
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/dler.py --workdir=$WORKDIR
Smoke   the same with --config=configs/dler.py:smoke or :da,smoke (one CPU, under a minute)
Fits    h100:8: 62 of 80 GiB a device, at least 223 s a step, with sampling.slots=400,
        train.micro_batches=1, train.pack=5024, train.micro_tokens=5024
        v5p:2x2x2: 77 of 95 GiB a device, at least 365 s a step, with sampling.slots=512
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "da")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  adaptive = variant_of(mode, VARIANTS) == "da"
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=4000)
  c.reward = dict(fn="truncation")
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="reinforce_baseline")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28, kl=dict(fn="k2", beta=5e-4))
  c.weights = dict(fn="token_mean")
  if adaptive:
    c.revise = dict(fn="cut_to_tier", thresholds=(0.5,), limits=(4000, 2000))
  c.policy = common.pretrained("DLER-R1-1.5B" if adaptive else "DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=150 if adaptive else 450,
    prompts=512,
    group_size=16,
    max_tokens=4000,
    micro_batches=8,
    updates=8,
    max_rounds=4,
  )
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c).train.max_rounds = 2
    if adaptive:
      c.revise.limits = (16, 8)
  return c


def sweep(add, variant):
  if variant == "da":
    for limits in ((4000, 2000), (4000, 1000)):
      add({"revise.limits": limits})
  else:
    for target in (2000, 4000, 6000):
      add({"budget.target": target})

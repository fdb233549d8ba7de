"""LASER: a bonus for a right answer that ends by a target below the cap.

  laser.py     LASER: a bonus for a right answer that ends by one target, the same for all prompts.
  laser.py:d   LASER-D: a target for each level of accuracy, set by what a monitor set needs.
  laser.py:de  LASER-DE: LASER-D, and wrong answers beyond the target earn for going on.

Source  arXiv:2505.15612 and its code (alpha 0.5; LASER: targets 2,048 to 8,192, right +1, wrong
        -0.5, unread -1; D and DE: lower 4,096, upper 16,384, 500 monitor prompts every 20 steps).
        Levels expect 6, 3 and 1 right of 8 as in the paper; the scripts round down
        (round_down=True). For DE the code spares bad formats (spare_bad_format=True), and its guard
        against repetition never fires
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/laser.py --workdir=$WORKDIR
Smoke   the same with --config=configs/laser.py:smoke or :d,smoke (one CPU, under a minute)
Fits    h100:8: 65 of 80 GiB a device, at least 225 s a step
        v5p:2x2x2: 65 of 95 GiB a device, at least 390 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "d", "de")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  base = dict(fn="correctness", wrong=-0.5, bad_format=-1.0)
  c.budget = dict(fn="fixed", target=8192, cap=16384)
  c.reward = dict(fn="step_bonus", alpha=0.5, base=base)
  if variant := variant_of(mode, VARIANTS):
    lengths = dict(lower=4096, upper=16384, interval=1024, initial=8192)
    c.reward = dict(fn="laser_d", **lengths, alpha=0.5, base=base)
    c.monitor = dict(every=20, prompts=500)
  if variant == "de":
    c.reward.explore = 0.5
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(
    fn="clipped_surrogate",
    clip_low=0.2,
    clip_high=0.28,
    kl=dict(fn="k3", beta=1e-3),
    entropy_bonus=1e-3,
  )
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1500, prompts=128, group_size=8, max_tokens=16384, micro_batches=8, updates=2
  )
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c).budget = dict(fn="fixed", target=8, cap=16)
    if variant:
      c.reward.update(lower=4, upper=16, interval=4, initial=8)
      c.monitor = dict(every=1, prompts=4)
    else:
      c.train.updates = 2
  return c


def sweep(add, variant):
  if variant:
    for lower in (1024, 2048, 4096):
      add({"reward.lower": lower})
  else:
    for target in (2048, 4096, 8192):
      add({"budget.target": target})

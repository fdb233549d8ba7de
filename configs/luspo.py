"""LUSPO: GSPO's loss times the response's length, so that no token counts less in a long one.

Source  arXiv:2602.05261 (clip 2e-3 and 2.5e-3, 128 x 8, mini-batch 16, cap 32,768, warm-up 20;
        format 0.5, overlong 0.3; top-p 0.7)
Tier    A
Data    questions with answers as JSON lines in data/dapo_math.jsonl; evaluated on
        data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/luspo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/luspo.py:smoke (one CPU, under a minute)
Fits    h100:8: 54 of 80 GiB a device, at least 2,797 s a step, with sampling.slots=16,
        train.micro_batches=1, train.pack=33792, train.micro_tokens=33792
        v5p:2x2x2: 68 of 95 GiB a device, at least 3,470 s a step, with sampling.slots=24,
        train.micro_batches=1, train.pack=33792, train.micro_tokens=33792
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=32768)
  c.reward = dict(
    fn="soft_overlong",
    max_length=32768,
    buffer=4096,
    factor=0.3,
    base=dict(fn="rule_fraction", rules=("has_answer",), weight=0.5),
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="sequence_clipped_surrogate", clip_low=2e-3, clip_high=2.5e-3)
  c.weights = dict(fn="sequence_sum")
  c.policy = common.pretrained("Qwen2.5-7B")
  c.task = common.dapo_math(signals=dict(fn="answer_span", extract="boxed"))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(control=dict(fn="top_p", p=0.7))
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=20)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1000, prompts=128, group_size=8, max_tokens=32768, micro_batches=2, updates=8
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.update(max_length=16, buffer=8)
  return c


def sweep(add):
  for clip_high in (4e-4, 2.5e-3):
    add({"loss.clip_high": clip_high})

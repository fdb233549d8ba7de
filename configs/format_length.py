"""Format and length as surrogate signals: no answers needed, half the context is best.

Source  arXiv:2505.19439, text and code (turn 0.5 of 3,072 tokens, G 8, batch 128, temperature 0.6,
        KL 0.001); the code has two format flags of half a point
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/format_length.py --workdir=$WORKDIR
Smoke   the same with --config=configs/format_length.py:smoke (one CPU, under a minute)
Fits    h100:8: 50 of 80 GiB a device, at least 19 s a step
        v5p:2x2x2: 50 of 95 GiB a device, at least 28 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=3072)
  c.reward = dict(fn="format_length", max_length=3072, turn=0.5)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-Math-7B")
  c.task = common.deepscaler(signals=dict(fn="answer_span", extract="boxed"))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=16, group_size=8, max_tokens=3072, micro_batches=2)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.max_length = 16
  return c


def sweep(add):
  for turn in (0.25, 0.5, 0.75):
    add({"reward.turn": turn})

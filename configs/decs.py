"""DECS: thinking after the answer is there pays less, token by token; easy prompts are rationed.

Source  arXiv:2509.25827 and its code (r+ 1.1, r0 1.0, beta 0.2; 64 prompts, 16 samples, 16,384
        tokens, temperature 0.6, lr 2e-6, no KL, up to 10 rounds). Its code takes r+ for r0
        (advantage.low=1.1). Stand-in: a trained judge there says which chunk of the thinking has
        the right answer; here the first in which the final answer stands by itself. Steps, 3 epochs
        of rounds of 128 prompts in the script, are ours
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/decs.py --workdir=$WORKDIR
Smoke   the same with --config=configs/decs.py:smoke (one CPU, under a minute)
Fits    h100:8: 63 of 80 GiB a device, at least 203 s a step, with train.micro_batches=1,
        train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 63 of 95 GiB a device, at least 344 s a step, with train.micro_batches=1,
        train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="easy_share", step_size=0.2)
  c.advantage = dict(fn="decs", max_length=16384, high=1.1, low=1.0, slope=0.1)
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(signals=dict(fn="answer_chunk", extract="boxed"))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=2e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=945, prompts=64, group_size=16, max_tokens=16384, micro_batches=8, max_rounds=10
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.advantage.max_length = 16
    c.train.max_rounds = 2
  return c


def sweep(add):
  for slope in (0.05, 0.1, 0.2):
    add({"advantage.slope": slope})

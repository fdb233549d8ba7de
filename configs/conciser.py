"""ConciseR: first right, then short: length counts in the last steps, where a whole group is right.

Source  arXiv:2505.21178, whose training code is not released. Stand-in: step counts, entropy weight
        and the scale of the length reward are ours; mixed groups go on learning from verdicts
Tier    B
Data    MATH's train split as JSON lines in data/math.jsonl
Run     python -m experiments.train --config=configs/conciser.py --workdir=$WORKDIR
Smoke   the same with --config=configs/conciser.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink

BOXED = "{question}\nPut your final answer within \\boxed{}."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=3072)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28, entropy_bonus=1e-3)
  c.weights = dict(fn="token_mean")
  short = dict(fn="conciser", max_length=3072)
  c.then = [dict(at=400, reward=short, filter=dict(fn="nonconstant_reward"))]
  c.policy = dict(fn="pretrained", path="models/Qwen2.5-Math-7B", dtype="bfloat16", remat="full")
  c.task = dict(
    fn="jsonl",
    path="data/math.jsonl",
    question="problem",
    answer="answer",
    difficulty="level",
    extract="boxed",
    template=BOXED,
  )
  c.sampling = dict(temperature=1.0, dtype="bfloat16")
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(
    steps=415,
    prompts=128,
    group_size=8,
    max_tokens=3072,
    max_prompt_tokens=1024,
    micro_batches=16,
    max_rounds=3,
  )
  c.eval = dict(every=100, prompts=512)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=16)
    c.then[0].update(at=1)
    c.train.max_rounds = 2
  return c


def sweep(add):
  for short_steps in (15, 30, 60):
    add({"train.steps": 400 + short_steps})

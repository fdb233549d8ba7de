"""Dr. GRPO: no division by length or by the group's spread, so length has no say in the gradient.

Source  arXiv:2503.20783 (G 8, no KL, tokens divided by the cap of 3,000)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl
Run     python -m experiments.train --config=configs/dr_grpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/dr_grpo.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink

BOXED = "{question}\nPut your final answer within \\boxed{}."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=3000)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_centered")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="fixed_length", length=3000)
  c.policy = dict(fn="pretrained", path="models/Qwen2.5-Math-7B", dtype="bfloat16", remat="full")
  c.task = dict(
    fn="jsonl",
    path="data/deepscaler.jsonl",
    question="problem",
    answer="answer",
    extract="boxed",
    template=BOXED,
  )
  c.sampling = dict(temperature=1.0, dtype="bfloat16")
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(
    steps=500,
    prompts=128,
    group_size=8,
    max_tokens=3000,
    max_prompt_tokens=1024,
    micro_batches=16,
  )
  c.eval = dict(every=100, prompts=512)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=16)
    c.weights.length = 16
  return c


def sweep(add):
  for learning_rate in (3e-7, 1e-6, 3e-6):
    add({"optimizer.learning_rate": learning_rate})

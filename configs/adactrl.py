"""AdaCtrl: a response opens with [Easy] or [Hard]; easy ones should be short, and tags fit.

Source  arXiv:2505.18822 and its code (256 x 16, threshold 0.625, weights 0.5, cap 24,576, no KL);
        it starts from a policy that was taught the tags by SFT
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl
Run     python -m experiments.train --config=configs/adactrl.py --workdir=$WORKDIR
Smoke   the same with --config=configs/adactrl.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink

BOXED = "{question}\nPut your final answer within \\boxed{}."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=24576)
  c.reward = dict(
    fn="soft_overlong",
    max_length=24576,
    buffer=4096,
    base=dict(fn="adactrl", threshold=0.625, length_weight=0.5, calibration_weight=0.5),
  )
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = dict(
    fn="pretrained", path="models/Qwen2.5-7B-Instruct", dtype="bfloat16", remat="full"
  )
  c.task = dict(
    fn="jsonl",
    path="data/deepscaler.jsonl",
    question="problem",
    answer="answer",
    extract="boxed",
    template=BOXED,
    signals=dict(fn="opening_tag", tags=("[Easy]", "[Hard]")),
  )
  c.sampling = dict(temperature=1.0, dtype="bfloat16")
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(
    steps=1000,
    prompts=256,
    group_size=16,
    max_tokens=24576,
    max_prompt_tokens=1024,
    micro_batches=16,
    max_rounds=2,
  )
  c.eval = dict(every=100, prompts=512)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=16)
    c.reward.update(max_length=16, buffer=8)
  return c


def sweep(add):
  for length_weight in (0.0, 0.5, 1.0):
    add({"reward.base.length_weight": length_weight})

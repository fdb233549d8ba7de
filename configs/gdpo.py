"""GDPO: verdict and length are normalised apart in each group, and their sum over the batch.

  gdpo.py         GDPO: verdict and length are normalised apart, and their sum over the batch.
  gdpo.py:tokens  GDPO, by tokens: the sum is whitened over tokens, most of them of long rollouts.

Source  arXiv:2601.05242 and its code (512 prompts, mini-batch 64, 16 samples, clip 0.28, KL 5e-4 as
        k2, groups with equal sums of rewards replaced; 4,000 tokens; the length reward only if
        right, which the paper recommends); NVIDIA's scripts for mathematics were not found, so that
        steps and the cap are ours. A group trains if the sum of its rewards varies
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/gdpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/gdpo.py:smoke or :tokens,smoke (one CPU, under a minute)
Fits    h100:8: 62 of 80 GiB a device, at least 620 s a step, with sampling.slots=224,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
        v5p:2x2x2: 74 of 95 GiB a device, at least 945 s a step, with sampling.slots=272,
        train.micro_batches=1, train.pack=9216, train.micro_tokens=9216
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "tokens")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=4000, cap=8192)
  c.reward = dict(fn="step_bonus", alpha=1.0)
  c.filter = dict(fn="nonconstant_reward")
  c.advantage = dict(fn="gdpo", components=("correct", "within_target"), weights=(1.0, 1.0))
  if variant_of(mode, VARIANTS) == "tokens":
    c.advantage.per_token = True
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28, kl=dict(fn="k2", beta=5e-4))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=450,
    prompts=512,
    group_size=16,
    max_tokens=8192,
    micro_batches=8,
    updates=8,
    max_rounds=4,
  )
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c).budget = dict(fn="fixed", target=8, cap=16)
    c.train.max_rounds = 2
  return c


def sweep(add, variant):
  del variant
  for weight in (0.25, 0.5, 1.0):
    add({"advantage.weights": (1.0, weight)})

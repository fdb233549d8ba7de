"""Light-R1's RL stage: right answers are not paid for being shorter than a given length.

Source  arXiv:2503.10460 (128 prompts, 8 answers, 24,000 tokens, KL 0.001, rate 1e-6, dual clip);
        its reward prints no formula. Stand-in: a shorter right answer counts as `shortest` tokens
        long, with 4,096 of them, our reading
Tier    B
Data    problems of medium difficulty in data/light_r1_problems.jsonl:
        lcrl-cold-start --kind=problems --answers=... --out=...
Run     lcrl-train --config=configs/light_r1_rl.py --workdir=$WORKDIR
Smoke   the same with --config=configs/light_r1_rl.py:smoke (one CPU, under a minute)
Fits    h100:16: 64 of 80 GiB a device, at least 2,291 s a step, with train.micro_batches=1,
        mesh.tensor=2, train.pack=25024, train.micro_tokens=25024, sampling.slots=16
        v5p:2x4x4: 71 of 95 GiB a device, at least 2,022 s a step, with train.micro_batches=1,
        sampling.slots=8, train.pack=25024, train.micro_tokens=25024
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=24000)
  c.reward = dict(fn="cosine_length", max_length=24000, shortest=4096)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", dual_clip=3.0, kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Light-R1-14B-SFT")
  c.task = dict(
    fn="jsonl",
    path="data/light_r1_problems.jsonl",
    question="problem",
    answer="answer",
    extract="boxed",
  )
  c.eval_task = common.math500()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=220, prompts=128, group_size=8, max_tokens=24000, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.update(max_length=20, shortest=4, margin=2)
  return c


def sweep(add):
  for shortest in (0, 2048, 4096, 8192):
    add({"reward.shortest": shortest})

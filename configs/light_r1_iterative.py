"""Light-R1: a stronger model's right answers over the policy's own wrong ones, round after round.

Source  arXiv:2503.10460 and its script (NCA with beta 0.3, rate 5e-7); there one round with answers
        of up to 32,768 tokens
Data    questions with answers in data/deepscaler.jsonl; the teacher's answers as JSON lines with
        prompt and response in data/deepscaler_r1.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/light_r1_iterative.py --workdir=$WORKDIR
Smoke   the same with --config=configs/light_r1_iterative.py:smoke (one CPU, under a minute)
Fits    h100:8: 69 of 80 GiB a device, at least 22 s a step, with train.micro_batches=8,
        sampling.slots=6, mesh.tensor=2
        v5p:2x2x2: 79 of 95 GiB a device, at least 48 s a step, with train.micro_batches=4
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rounds
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "iterative", "seed": 0})
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.teacher = dict(fn="jsonl", path="data/deepscaler_r1.jsonl")
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="correctness")
  c.pairing = dict(fn="right_vs_wrong")
  c.loss = dict(fn="nca", beta=0.3)
  c.reference = dict(fn="start")
  c.policy = common.pretrained("Light-R1-14B-SFT")
  c.batches = dict(fn="stratified", size=32)
  c.sampling = common.sampling(slots=8)
  c.optimizer = dict(fn="adamw", learning_rate=5e-7)
  c.mesh = common.fsdp()
  c.round = dict(prompts=512, group_size=4, updates=32)
  c.train = dict(
    steps=96, prompts=128, max_tokens=16384, max_prompt_tokens=2048, micro_batches=16, pack=18432
  )
  c.eval = dict(every=32, prompts=512)
  c.checkpoint = dict(every=16, keep=1)
  if is_smoke(mode):
    shrink_rounds(c)
  return c


def sweep(add):
  for beta in (0.1, 0.3):
    add({"loss.beta": beta})

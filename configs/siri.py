"""SIRI: the generation limit swings between 8k and 16k; what was cut off is judged as it stands.

Source  arXiv:2509.25176 (cosine, 8,192 to 16,384, period 640, three cycles, clip 0.2 and 0.28, no
        KL; 32 samples is our reading); caps are per row, so a schedule compiles once a bucket
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/siri.py --workdir=$WORKDIR
Smoke   the same with --config=configs/siri.py:smoke (one CPU, under a minute)
Fits    h100:8: 66 of 80 GiB a device, at least 880 s a step, with sampling.slots=128,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 81 of 95 GiB a device, at least 1,216 s a step, with sampling.slots=160,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(
    fn="scheduled", schedule=dict(fn="cosine_cycle", low=8192, high=16384, period=640)
  )
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1920, prompts=128, group_size=32, max_tokens=16384, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.schedule.update(low=8, high=16, period=4)
  return c


def sweep(add):
  for period in (320, 480, 640):
    add({"budget.schedule.period": period})

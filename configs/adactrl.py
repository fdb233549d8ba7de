"""AdaCtrl: a response opens with [Easy] or [Hard]; easy ones should be short, and tags fit.

Source  arXiv:2505.18822 and its code (256 x 16, threshold 0.625, weights 0.5, cap 24,576, no KL);
        it starts from a policy that was taught the tags by SFT, configs/cold_start.py:adactrl
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/adactrl.py --workdir=$WORKDIR
Smoke   the same with --config=configs/adactrl.py:smoke (one CPU, under a minute)
Fits    h100:16: 64 of 80 GiB a device, at least 2,749 s a step, with sampling.slots=32,
        train.micro_batches=1, train.pack=25600, train.micro_tokens=25600
        v5p:2x4x4: 83 of 95 GiB a device, at least 1,769 s a step, with train.micro_batches=1,
        sampling.slots=48, train.pack=25600, train.micro_tokens=25600
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


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
  c.policy = common.pretrained("Qwen2.5-7B-Instruct")
  c.task = common.deepscaler(signals=dict(fn="opening_tag", tags=("[Easy]", "[Hard]")))
  c.eval_task = common.math500()
  c.eval_tasks = dict(
    aime24=common.aime24(),
    tagged=common.math500(render=dict(fn="prefix", templates=("[Easy]", "[Hard]")), levels=(0, 1)),
  )
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1000, prompts=256, group_size=16, max_tokens=24576, micro_batches=16, max_rounds=2
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.update(max_length=16, buffer=8)
  return c


def sweep(add):
  for length_weight in (0.0, 0.5, 1.0):
    add({"reward.base.length_weight": length_weight})

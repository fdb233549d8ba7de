"""GRLC: thinking and answer each earn by how short they are in their group.

Source  NVIDIA's Nemotron 3 Nano report, as restated by QGLAS (all weights 0.5, 80th percentile);
        sizes are ours
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/grlc.py --workdir=$WORKDIR
Smoke   the same with --config=configs/grlc.py:smoke (one CPU, under a minute)
Fits    h100:8: 52 of 80 GiB a device, at least 1,280 s a step, with sampling.slots=16,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
        v5p:2x2x2: 52 of 95 GiB a device, at least 1,659 s a step, with sampling.slots=16,
        train.micro_batches=1, train.pack=17408, train.micro_tokens=17408
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="grlc", think_weight=0.5, answer_weight=0.5, bonus=0.5, quantile=0.8)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen3-4B")
  c.task = common.deepscaler(signals=dict(fn="think_tags"))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=16, max_tokens=16384, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for think_weight in (0.1, 0.5):
    add({"reward.think_weight": think_weight})

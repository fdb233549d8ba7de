"""HAPO: a response against the shortest right answer that its prompt ever got.

Source  arXiv:2505.11225 and its code (weight 1, cosine, 2,000 prompts, 5 epochs, temperature 0.7, 2
        samples; KL 0.04 from memory); the history is in the checkpoint, which the code loses
Tier    A
Data    2,000 questions with answers as JSON lines, as DeepScaleR's, in data/deepscaler_2000.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/hapo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/hapo.py:smoke (one CPU, under a minute)
Fits    h100:4: 52 of 80 GiB a device, at least 122 s a step
        v5p:2x2x1: 52 of 95 GiB a device, at least 193 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=32768)
  c.reward = dict(fn="hapo", rows=2000, weight=1.0, score=dict(fn="cosine_history"))
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized", eps=1e-4)
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=0.04))
  c.weights = dict(fn="sequence_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler("data/deepscaler_2000.jsonl")
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.7)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=310, prompts=32, group_size=2, max_tokens=32768, micro_batches=4)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.reward.rows = c.task.size
  return c


def sweep(add):
  for weight in (0.25, 0.5, 1.0):
    add({"reward.weight": weight})

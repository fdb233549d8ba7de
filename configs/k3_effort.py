"""K3's effort training: an answer that exceeds its effort's share of a first length pays -1.

Source  arXiv:2607.24653, section 4.1.2, as summarised. Stand-in: the shares and their steps; one
        policy for all efforts, where the paper trains an expert for each and merges them; and the
        length of a prompt's first answers in the run, whatever their effort, for the start's
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/k3_effort.py --workdir=$WORKDIR
Smoke   the same with --config=configs/k3_effort.py:smoke (one CPU, under a minute)
Fits    h100:4: 69 of 80 GiB a device, at least 119 s a step
        v5p:2x2x1: 69 of 95 GiB a device, at least 207 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

ASK = (" Effort: low.", " Effort: high.", " Effort: max.")
ROWS = 40_315  # of DeepScaleR


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="effort", efforts=(0.5, 1.0, 1.5), tokens=8192, cap=8192)
  c.reward = dict(
    fn="effort",
    efforts=((0.8, 1.2, 1.8), (0.6, 1.0, 1.6), (0.4, 0.8, 1.4)),
    at=(200, 400),
    reference=dict(fn="first_mean_reference", rows=ROWS),
    term=dict(fn="length_gate", outside=-1.0),
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=ASK))
  c.eval_task = common.math500(render=c.task.render, efforts=c.budget.efforts)
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=600, prompts=128, group_size=8, max_tokens=8192, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.update(tokens=16, cap=16)
    c.reward.reference.rows = c.task.size
    c.reward.at = (1, 2)
  return c


def sweep(add):
  for outside in (-1.0, 0.0):
    add({"reward.term.outside": outside})

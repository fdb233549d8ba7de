"""A-DLP: a price for each token that rises while accuracy is above its reference.

Source  arXiv:2505.18298, as its code has it (start 1e-3, step 1e-3, reference 0.62, 64 prompts,
        4 samples, 8,192 tokens, temperature 0.6, KL 1e-3 as k3). Steps, 3 epochs in the script, are
        ours: 3 epochs of DeepScaleR's 40,315 problems
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/a_dlp.py --workdir=$WORKDIR
Smoke   the same with --config=configs/a_dlp.py:smoke (one CPU, under a minute)
Fits    h100:2: 66 of 80 GiB a device, at least 69 s a step
        v5p:2x2x1: 34 of 95 GiB a device, at least 64 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="a_dlp", reference=0.62, start=1e-3, step_size=1e-3)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepScaleR-1.5B-Preview")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1890, prompts=64, group_size=4, max_tokens=8192, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for step_size in (1e-4, 1e-3, 1e-2):
    add({"reward.step_size": step_size})

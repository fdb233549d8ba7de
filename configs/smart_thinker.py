"""SmartThinker: right answers pay beyond the length at which accuracy peaks in their group.

Source  arXiv:2603.08000, as its code has it (64 prompts, mini-batch 16, 8 samples, 8,000 tokens,
        temperature 0.6, no KL, 3 epochs, about 1,890 steps of DeepScaleR's 40,315 problems)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/smart_thinker.py --workdir=$WORKDIR
Smoke   the same with --config=configs/smart_thinker.py:smoke (one CPU, under a minute)
Fits    h100:4: 55 of 80 GiB a device, at least 67 s a step
        v5p:2x2x1: 55 of 95 GiB a device, at least 118 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8000)
  c.reward = dict(fn="smart_thinker")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.6)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=1890,
    prompts=64,
    group_size=8,
    max_prompt_tokens=1500,
    max_tokens=8000,
    micro_batches=2,
    updates=4,
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for target in (4000, 8000):
    add({"budget.target": target})

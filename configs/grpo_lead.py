"""GRPO-LEAD: shorter right answers earn more, wrong ones lose, and rare outcomes weigh more.

Source  arXiv:2504.09696 and its code (alpha 0.05, wrong -1, weights 0.4 to 1.5, the middle at 0.75;
        32 prompts, 8 samples, temperature 0.8, no KL). The scripts in the repository have a cap of
        1,024 tokens and a 14B model; the 7B one, 8,192 tokens and steps are ours. The code spares
        groups of short answers (spare_up_to=4000)
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/grpo_lead.py --workdir=$WORKDIR
Smoke   the same with --config=configs/grpo_lead.py:smoke (one CPU, under a minute)
Fits    h100:8: 40 of 80 GiB a device, at least 71 s a step, with train.micro_batches=1,
        train.pack=9216, train.micro_tokens=9216
        v5p:2x2x2: 72 of 95 GiB a device, at least 111 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8192)
  c.reward = dict(fn="grpo_lead", alpha=0.05, base=dict(fn="correctness", wrong=-1.0))
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="difficulty_weighted")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-7B")
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling(0.8)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=300, prompts=32, group_size=8, max_tokens=8192, micro_batches=4)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
  return c


def sweep(add):
  for alpha in (0.05, 0.1, 0.2):
    add({"reward.alpha": alpha})

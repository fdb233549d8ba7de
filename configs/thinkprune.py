"""ThinkPrune: right and finished within a limit that is stated, and falls twice.

Source  arXiv:2504.01296 and its code (KL 0.001); each limit there starts from the best checkpoint
        of the last, here it follows on; words of the prompt are ours
Tier    A
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/thinkprune.py --workdir=$WORKDIR
Smoke   the same with --config=configs/thinkprune.py:smoke (one CPU, under a minute)
Fits    h100:4: 42 of 80 GiB a device, at least 44 s a step
        v5p:2x2x1: 42 of 95 GiB a device, at least 82 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

LIMIT = "Your answer, thinking included, must fit into {target} tokens."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=4000)
  c.reward = dict(fn="truncation")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", kl=dict(fn="k3", beta=1e-3))
  c.weights = dict(fn="token_mean")
  c.then = [
    dict(at=200, budget=dict(fn="fixed", target=3000)),
    dict(at=400, budget=dict(fn="fixed", target=2000)),
  ]
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(render=dict(fn="system", templates=LIMIT))
  c.eval_task = common.math500(render=c.task.render, targets=(2000,))
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=600, prompts=128, group_size=8, max_tokens=4000, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.then = [dict(at=1, budget=dict(fn="fixed", target=12))]
  return c


def sweep(add):
  for beta in (0.0, 1e-3):
    add({"loss.kl.beta": beta})

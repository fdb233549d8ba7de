"""AnytimeReasoner: thinking that is worth most wherever it is stopped, by BRPO.

Source  arXiv:2505.13438 and its code (budgets up to 8,000 with weights in proportion, 4 answers of
        128 tokens at each, 64 prompts, 8 samples, 2 updates a batch, rate 1e-6, no KL; one epoch of
        DeepScaleR's 40,315 problems). Stand-in: of the answers only the response's own trains,
        against those that are forced at the end of its thinking
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/anytime_reasoner.py --workdir=$WORKDIR
Smoke   the same with --config=configs/anytime_reasoner.py:smoke (one CPU, under a minute)
Fits    h100:4: 54 of 80 GiB a device, at least 67 s a step
        v5p:2x2x1: 54 of 95 GiB a device, at least 117 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

BUDGETS = (2000, 4000, 6000, 8000)
FORCE = "...\n\n...\n\n</think>\n\n**Final Answer**\n"


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8128)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="budget_relative", budgets=BUDGETS, weights=(0.1, 0.2, 0.3, 0.4))
  c.loss = dict(fn="clipped_surrogate")
  c.revise = dict(fn="answer_at_budgets", force=FORCE, cap=128, budgets=BUDGETS, samples=4)
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(signals=dict(fn="think_tags"))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=630, prompts=64, group_size=8, max_tokens=8128, micro_batches=4, updates=2
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.budget.target = 16
    c.advantage.update(budgets=(8, 16), weights=(0.5, 1.0))
    c.revise.update(force="!", cap=4, budgets=(8, 16), samples=2)
  return c


def sweep(add):
  for weights in ((0.25,) * 4, (0.1, 0.2, 0.3, 0.4), (0.0, 0.0, 0.0, 1.0)):
    add({"advantage.weights": weights})

"""MRT: an episode of thinking earns by how much it adds to the chance of a right answer given now.

  mrt.py        MRT by one episode: the bonus of a drawn episode goes to the whole response.
  mrt.py:dense  MRT by episode: the tokens of each episode get its own bonus.

Source  arXiv:2503.07572, whose bonus is in no released code. Stand-in: episodes are quarters of
        the thinking, by default one of them a response; values of 8 forced answers, alpha 0.2
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl and data/aime24.jsonl
Run     lcrl-train --config=configs/mrt.py --workdir=$WORKDIR
Smoke   the same with --config=configs/mrt.py:smoke or :dense,smoke (one CPU, under a minute)
Fits    h100:4: 51 of 80 GiB a device, at least 111 s a step
        v5p:2x2x1: 51 of 95 GiB a device, at least 183 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

FORCE = "\n\nTime is up. I answer with what I have.\n</think>\n\n"

VARIANTS = ("", "dense")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=16384)
  c.reward = dict(fn="mrt", alpha=0.2)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.revise = dict(fn="force_answers", force=FORCE, cap=256, episodes=4, samples=8)
  if variant_of(mode, VARIANTS) == "dense":
    c.reward = dict(fn="correctness")
    c.advantage = dict(fn="block_progress", alpha=0.2, base=dict(fn="group_normalized"))
    c.revise.dense = True
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(signals=dict(fn="think_tags"))
  c.eval_task = common.math500()
  c.eval_tasks = dict(aime24=common.aime24())
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=4, max_tokens=16384, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
    c.revise.update(force="!", cap=4, samples=2)
  return c


def sweep(add, variant):
  for alpha in (0.0, 0.2, 1.0):
    add({f"{'advantage' if variant else 'reward'}.alpha": alpha})

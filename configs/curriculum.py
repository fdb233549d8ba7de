"""Train Long, Think Short: a budget in the prompt that shrinks from 256 to 87 tokens over training.

Source  arXiv:2508.08940 (256, 0.7 every 150 steps; triangular score); the main weights are not
        given, these are its ablation's; instruction in our words
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl; evaluated on data/gsm8k_test.jsonl
Run     lcrl-train --config=configs/curriculum.py --workdir=$WORKDIR
Smoke   the same with --config=configs/curriculum.py:smoke (one CPU, under a minute)
Fits    h100:4: 66 of 80 GiB a device, at least 12 s a step
        v5p:2x2x1: 66 of 95 GiB a device, at least 22 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke

ASK = (
  " Reason inside <think> and </think>, answer inside <answer> and </answer>; use exactly {target}"
  " tokens."
)


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(
    fn="scheduled",
    schedule=dict(fn="exponential_decay", start=256, decay=0.7, interval=150),
    cap=1024,
  )
  c.reward = dict(
    fn="curriculum",
    score=dict(fn="triangular"),
    correct_weight=0.6,
    length_weight=0.3,
    format_weight=0.1,
  )
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-7B-Instruct")
  c.task = common.gsm8k(
    extract="answer_tag",
    render=dict(fn="suffix", templates=ASK),
    signals=dict(
      fn="several",
      think=dict(fn="think_tags", open="<think>"),
      answer=dict(fn="answer_span", extract="answer_tag"),
    ),
  )
  c.eval_task = common.gsm8k_test(extract="answer_tag", render=c.task.render, targets=(87,))
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=600, prompts=32, group_size=8, max_tokens=1024, micro_batches=4)
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c).budget.schedule.update(start=16, interval=1)
    c.budget.cap = 16
  return c


def sweep(add):
  for length_weight in (0.3, 0.6):
    add({"reward.length_weight": length_weight})

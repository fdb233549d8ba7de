"""LongWriter-Zero: length, format and the writing itself, each standardised before the mix.

  longwriter_zero.py          LongWriter-Zero on answers: one range in tokens, tags, the verdict.
  longwriter_zero.py:writing  LongWriter-Zero: a range in words for each prompt, few repeated
                              paragraphs, and a writing model's score.

Source  arXiv:2506.18841, secondary notes. Stand-in: by default, one range in tokens where a judge
        gives one in words, answer tags for the format, a verdict for the writing model; in
        `writing`, the share of paragraphs that repeat none for the format
Tier    B
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl; for :writing, prompts with the
        columns min_words and max_words in data/writing.jsonl;
        evaluated on data/gsm8k_test.jsonl
First   for :writing, a run of configs/reward_model.py on writing in runs/writing_model
Run     lcrl-train --config=configs/longwriter_zero.py --workdir=$WORKDIR
Smoke   the same with --config=configs/longwriter_zero.py:smoke or :writing,smoke (one CPU,
        under a minute); a random writing model scores there
Fits    h100:8: 51 of 80 GiB a device, at least 609 s a step, with sampling.slots=32,
        train.micro_batches=1, train.pack=15024, train.micro_tokens=15024
        v5p:2x2x2: 77 of 95 GiB a device, at least 713 s a step, with sampling.slots=64,
        train.micro_batches=1, train.pack=15024, train.micro_tokens=15024
Result  not run yet
"""

import pathlib

from ml_collections import config_dict

from configs import common
from configs.smoke import SUMS, shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "writing")
WRITING = dict(
  fn="several",
  words=dict(fn="words", low="min_words", high="max_words"),
  paragraphs=dict(fn="distinct_paragraphs"),
)


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=14000)
  c.reward = dict(fn="length_range", low=200, high=400, max_length=14000)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="component_average", signals=("scores", "has_answer"))
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-7B-Instruct")
  c.task = common.gsm8k(
    extract="answer_tag",
    template="{question} Put the answer inside <answer> and </answer>.",
    signals=dict(fn="answer_span", extract="answer_tag"),
  )
  c.eval_task = common.gsm8k_test(extract="answer_tag", template=c.task.template)
  writing = variant_of(mode, VARIANTS) == "writing"
  if writing:
    c.reward = dict(fn="word_range", max_words=10000)
    c.advantage = dict(fn="component_average", signals=("writing", "distinct"))
    c.learned = dict(writing=dict(path="runs/writing_model"))
    c.task = dict(fn="prompts", path="data/writing.jsonl", signals=WRITING)
    c.eval_task = common.gsm8k_test()  # what else it can do
  c.sampling = common.sampling(0.8)
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=32, group_size=32, max_tokens=14000, micro_batches=4)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
    if writing:
      path = str(pathlib.Path(__file__).with_name("smoke_writing.jsonl"))
      c.eval_task = dict(**SUMS, seed=1)
      c.task = dict(fn="prompts", path=path, signals=WRITING)
      c.learned = dict(writing=dict(untrained=1))
    else:
      c.reward.update(low=4, high=8, max_length=16)
  return c


def sweep(add, variant):
  for high in () if variant else (300, 400, 800):
    add({"reward.high": high})
  for most in (5000, 10000) if variant else ():
    add({"reward.max_words": most})

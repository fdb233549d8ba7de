"""Functions that turn a config into its smoke mode: two steps of a tiny policy, in seconds."""

import pathlib

from ml_collections import config_dict

SUMS = dict(fn="reasoning_gym", dataset="chain_sum", size=64, max_digits=1)


def shrink(c: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """Replaces everything that is large or must be fetched in a config of "rl".

  A fixed budget becomes 16 tokens; the method's other sections stay, so their lengths are the
  config's to shrink.

  All smoke runs share their shapes, so that one compiled policy serves them.
  """
  if c.budget.fn == "fixed":
    c.budget = dict(fn="fixed", target=16)
  c.policy = dict(fn="fresh", vocab_size=258)
  c.tokenizer = dict(fn="utf8")
  kept = {name: c.task[name] for name in ("render", "signals") if name in c.task}
  c.task = dict(**SUMS, seed=0, test_share=0.25, **kept)
  shrink_evaluations(c)
  c.mesh = dict(data=1, fsdp=1, devices=1)
  c.sampling = dict(temperature=1.0, control=c.sampling.get("control"))
  c.train.update(
    steps=2,
    prompts=4,
    group_size=4,
    max_tokens=16,
    max_prompt_tokens=256,
    micro_batches=1,
    updates=1,
  )
  c.eval = dict(prompts=4)
  c.checkpoint = dict(every=1, keep=1)
  c.verify = dict(workers=1)
  return c


def shrink_evaluations(c: config_dict.ConfigDict) -> None:
  """Of the sets to evaluate on, those that ask for budgets stay, on sums."""
  tasks = {"eval_task": c.get("eval_task"), **c.get("eval_tasks", {})}
  for name in ("eval_task", "eval_tasks"):
    if name in c:
      del c[name]
  asking = {
    name: dict(
      **SUMS,
      seed=1,
      same=True,
      render=task.render.to_dict(),
      **{n: task[n] for n in ("levels", "efforts") if n in task},
      **({"targets": tuple(range(4, 17, 4))[-len(task.targets) :]} if "targets" in task else {}),
    )
    for name, task in tasks.items()
    if task is not None and any(name in task for name in ("targets", "levels", "efforts"))
  }
  if "eval_task" in asking:
    del c.task.test_share
    c.eval_task = asking.pop("eval_task")
  if asking:
    c.eval_tasks = asking


def shrink_pairs(
  c: config_dict.ConfigDict, *, rows: str = "smoke_pairs.jsonl"
) -> config_dict.ConfigDict:
  """`shrink` for runs on pairs, which are read from a file in this folder."""
  c.policy = dict(fn="fresh", vocab_size=258)
  c.tokenizer = dict(fn="utf8")
  path = str(pathlib.Path(__file__).with_name(rows))
  c.data = dict(fn=c.data.fn, rows=dict(fn="jsonl", path=path), window=96, held_out=0.25)
  c.batches = dict(fn="stratified", size=4)
  c.mesh = dict(data=1, fsdp=1, devices=1)
  c.sampling = dict(temperature=1.0)
  c.train = dict(steps=2, max_tokens=16, max_prompt_tokens=64, prompts=4)
  c.eval = dict(pairs=4, prompts=4)
  c.checkpoint = dict(every=1, keep=1)
  return c


def shrink_rewards(
  c: config_dict.ConfigDict, *, rows: str = "smoke_pairs.jsonl"
) -> config_dict.ConfigDict:
  """`shrink` for reward models, which do not generate answers."""
  shrink_pairs(c, rows=rows)
  del c.sampling
  c.train = dict(steps=2)
  c.eval = dict(pairs=8)
  return c


def shrink_rounds(c: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """`shrink` for iterative runs. A fresh policy is never right, but pairs need a contrast, so the
  answers are scored by their length or paired with a teacher's."""
  c.policy = dict(fn="fresh", vocab_size=258)
  c.tokenizer = dict(fn="utf8")
  c.task = dict(**SUMS, seed=0, test_share=0.25)
  shrink_evaluations(c)
  c.budget = dict(fn="fixed", target=16)
  c.reward = dict(fn="length_penalty", alpha=0.02)
  if "teacher" in c:
    path = str(pathlib.Path(__file__).with_name("smoke_answers.jsonl"))
    c.teacher = dict(fn="jsonl", path=path)
  c.batches = dict(fn="stratified", size=4)
  c.mesh = dict(data=1, fsdp=1, devices=1)
  c.sampling = dict(temperature=1.0)
  c.round = dict(prompts=4, group_size=4, updates=1)
  c.train = dict(steps=2, prompts=4, max_tokens=16, max_prompt_tokens=256)
  c.eval = dict(prompts=4)
  c.checkpoint = dict(every=1, keep=1)
  c.verify = dict(workers=1)
  return c

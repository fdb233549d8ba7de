"""What a config becomes in its smoke mode: two steps of a tiny policy on sums, in seconds."""

from ml_collections import config_dict


def shrink(c: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """Replaces what is large or must be fetched; the method's own sections stay as they are.

  All smoke runs share their shapes, so that one compiled policy serves them.
  """
  c.policy = dict(fn="fresh", vocab_size=258)
  c.tokenizer = dict(fn="utf8")
  kept = {name: c.task[name] for name in ("render", "signals") if name in c.task}
  c.task = dict(fn="reasoning_gym", dataset="chain_sum", seed=0, size=64, max_digits=1, **kept)
  if "eval_task" in c:
    del c.eval_task
  c.mesh = dict(data=1, fsdp=1)
  c.sampling = dict(temperature=1.0)
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

"""LongPO: a model of short contexts teaches itself long ones.

Source  arXiv:2502.13922 and its code (AdamW in place of RMSprop; set rope_theta to 1e7 in the
        model folder's config.json, as there)
Data    prompt (long), reference_prompt (short), chosen (answers that), rejected (answers prompt)
Run     lcrl-train --config=configs/longpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/longpo.py:smoke (one CPU, under a minute)
Fits    h100:16: 69 of 80 GiB a device, at least 26 s a step, with mesh.sequence=2, train.prompts=2,
        train.pack=131072, mesh.tensor=8, train.micro_batches=8
        v5p:2x2x4: 84 of 95 GiB a device, at least 55 s a step, with mesh.sequence=2,
        train.prompts=8, train.pack=131072, mesh.tensor=2, train.micro_batches=2
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_pairs
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="longpo", beta=0.01, weight=0.01)
  c.weights = dict(fn="sequence_mean")
  c.reference = dict(fn="cached")
  c.policy = common.pretrained("Mistral-7B-Instruct-v0.2")
  c.data = dict(
    fn="pairs",
    rows=dict(fn="jsonl", path="data/longpo.jsonl"),
    window=131072,
    max_prompt_tokens=130048,
    held_out=0.01,
  )
  c.batches = dict(fn="stratified", size=8)
  c.sampling = common.sampling(0.7)
  c.optimizer = dict(fn="adamw", learning_rate=5e-7, warmup_steps=100, decay_steps=1000)
  c.mesh = common.fsdp()
  c.train = dict(
    steps=1000, max_tokens=1024, max_prompt_tokens=130048, micro_batches=1, pack=262144
  )
  c.eval = dict(every=100, pairs=512, prompts=16)
  if is_smoke(mode):
    shrink_pairs(c, rows="smoke_long_pairs.jsonl")
  return c


def sweep(add):
  for value in (0.01, 0.1):
    add({"loss.weight": value})

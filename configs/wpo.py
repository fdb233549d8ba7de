"""WPO: pairs count as much as they look like the policy's own.

Source  arXiv:2406.11827 and its code, which bounds weights by 1 (TRL does not)
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     python -m experiments.train --config=configs/wpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/wpo.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink_pairs


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="wpo", beta=0.01, most=1.0)
  c.reference = dict(fn="cached")
  c.policy = dict(
    fn="pretrained", path="models/Llama-3-Base-8B-SFT", dtype="bfloat16", remat="full"
  )
  c.data = dict(
    fn="pairs",
    rows=dict(fn="parquet", path="data/ultrafeedback_binarized.parquet"),
    window=2048,
    max_prompt_tokens=1800,
    held_out=0.01,
  )
  c.batches = dict(fn="stratified", size=128)
  c.sampling = dict(temperature=0.7, dtype="bfloat16")
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=48, decay_steps=478)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(steps=478, max_tokens=1024, max_prompt_tokens=1800, micro_batches=16, pack=4096)
  c.eval = dict(every=100, pairs=512, prompts=128)
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (1.0, None):
    add({"loss.most": value})

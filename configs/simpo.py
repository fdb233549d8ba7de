"""SimPO: the mean log-prob as reward, a margin to win by, and no reference.

Source  arXiv:2405.14734, its settings for Llama-3-Base
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     python -m experiments.train --config=configs/simpo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/simpo.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink_pairs


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="simpo", beta=2.0, margin=0.5)
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
  c.optimizer = dict(fn="adamw", learning_rate=6e-7, warmup_steps=48, decay_steps=478)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(steps=478, max_tokens=1024, max_prompt_tokens=1800, micro_batches=16, pack=4096)
  c.eval = dict(every=100, pairs=512, prompts=128)
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (0.1, 0.3, 0.5):
    add({"loss.margin": value})

"""AlphaPO: SimPO with a reward that bends for unlikely answers.

Source  arXiv:2501.03884, its settings for Mistral-7B-Instruct
Data    UltraFeedback-binarized (prompt, chosen, rejected), as Parquet
Run     python -m experiments.train --config=configs/alphapo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/alphapo.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink_pairs


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "preference", "seed": 0})
  c.loss = dict(fn="alphapo", alpha=0.25, beta=2.5, margin=0.04)
  c.policy = dict(
    fn="pretrained", path="models/Mistral-7B-Instruct-v0.2", dtype="bfloat16", remat="full"
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
  c.optimizer = dict(fn="adamw", learning_rate=7e-7, warmup_steps=48, decay_steps=478)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(steps=478, max_tokens=1024, max_prompt_tokens=1800, micro_batches=16, pack=4096)
  c.eval = dict(every=100, pairs=512, prompts=128)
  if is_smoke(mode):
    shrink_pairs(c)
  return c


def sweep(add):
  for value in (-0.25, 0.0, 0.25, 0.5):
    add({"loss.alpha": value})

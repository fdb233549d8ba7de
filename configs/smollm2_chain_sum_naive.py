"""A naive length penalty on short sums with SmolLM2-135M: it teaches to say nothing.

Model   SmolLM2-135M-Instruct, `make smollm2` puts it into the cache
Run     lcrl-train --config=configs/smollm2_chain_sum_naive.py --workdir=$WORKDIR
Smoke   the same with --config=configs/smollm2_chain_sum_naive.py:smoke (one CPU, under a minute)
Result  experiments/studies/smollm2_chain_sum/README.md
"""

from ml_collections import config_dict

from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8, cap=96)
  c.reward = dict(fn="length_penalty", alpha=0.02)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = dict(
    fn="pretrained", path="~/.cache/lcrl/smollm2-135m-instruct", dtype="bfloat16", remat="full"
  )
  c.task = dict(
    fn="reasoning_gym",
    dataset="chain_sum",
    seed=1,
    size=100_000,
    max_terms=3,
    max_digits=1,
    extract="last_number",
  )
  c.eval_task = dict(
    fn="reasoning_gym",
    dataset="chain_sum",
    seed=2,
    size=1_000,
    max_terms=3,
    max_digits=1,
    extract="last_number",
    same=True,  # there are a few thousand such sums: most of them train, too
  )
  c.sampling = dict(temperature=1.0)
  c.optimizer = dict(fn="adamw", learning_rate=2e-5)
  c.mesh = dict(data=-1, fsdp=1)
  c.train = dict(steps=100, prompts=64, group_size=8, max_tokens=96, max_prompt_tokens=96)
  c.eval = dict(every=25, prompts=512)
  c.checkpoint = dict(every=50, keep=1)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=8, cap=16)
  return c

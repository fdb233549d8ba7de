"""Correctness alone on short sums with SmolLM2-135M, sampled one step ahead of what trains.

While a step trains, the rollouts of the next one are sampled by a copy of the policy before the
update; weights min(p / p_sampler, 2), one a token, correct for its age. On one device the host's
work is hidden. On two, `sampling.devices=1` gives sampling a device of its own.

Model   SmolLM2-135M-Instruct, `make smollm2` puts it into the cache
Run     lcrl-train --config=configs/smollm2_chain_sum_steps_ahead.py \
          --workdir=$WORKDIR
Smoke   the same with --config=configs/smollm2_chain_sum_steps_ahead.py:smoke (under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=8, cap=96)
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", correction=dict(fn="truncated", high=2.0))
  c.weights = dict(fn="token_mean")
  c.policy = common.smollm2()
  c.task = common.chain_sum(seed=1, size=100_000)
  c.eval_task = dict(
    common.chain_sum(seed=2, size=1_000), same=True
  )  # there are a few thousand such sums: most of them train, too
  c.sampling = dict(temperature=1.0, devices=0)
  c.optimizer = dict(fn="adamw", learning_rate=2e-5)
  c.mesh = dict(data=-1, fsdp=1)
  c.train = dict(
    steps=100, prompts=64, group_size=8, max_tokens=96, max_prompt_tokens=96, steps_ahead=1
  )
  c.eval = dict(every=25, prompts=512)
  c.checkpoint = dict(every=50, keep=1)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=8, cap=16)
  return c

"""RLOO: REINFORCE with the mean of the others as the baseline, the KL penalty in the reward.

Source  arXiv:2402.14740 (4 samples; KL 0.03 from memory); a verdict stands where the paper has a
        reward model
Tier    A
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl
Run     python -m experiments.train --config=configs/rloo.py --workdir=$WORKDIR
Smoke   the same with --config=configs/rloo.py:smoke (one CPU, under a minute)
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=512)
  c.reward = dict(fn="kl_penalty", beta=0.03)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="leave_one_out")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="sequence_sum")
  c.policy = dict(
    fn="pretrained", path="models/Qwen2.5-1.5B-Instruct", dtype="bfloat16", remat="full"
  )
  c.task = dict(
    fn="jsonl", path="data/gsm8k.jsonl", reference="after_hashes", extract="last_number"
  )
  c.sampling = dict(temperature=1.0, dtype="bfloat16")
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(
    steps=500, prompts=128, group_size=4, max_tokens=512, max_prompt_tokens=1024, micro_batches=16
  )
  c.eval = dict(every=100, prompts=512)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=16)
  return c


def sweep(add):
  for beta in (0.0, 0.01, 0.03, 0.1):
    add({"reward.beta": beta})

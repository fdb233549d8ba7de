"""EVOLVE: each round the policy refines its answers, and what got better is chosen in both turns.

Source  arXiv:2502.05605, whose text could not be read: a preference of the refined answer to the
        first one, as answers to the prompt and to the request to refine, with a likelihood term.
        Loss, sizes and the request are ours, and a right answer in fewer tokens is better, where
        the paper has a reward model
Data    questions with answers in data/deepscaler.jsonl; evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/evolve.py --workdir=$WORKDIR
Smoke   the same with --config=configs/evolve.py:smoke (one CPU, under a minute)
Fits    h100:4: 59 of 80 GiB a device, at least 21 s a step
        v5p:2x2x1: 59 of 95 GiB a device, at least 46 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_rounds
from lcrl.commands.modes import is_smoke

INSTRUCTION = (
  "Check your answer, correct what is wrong, and leave out what is not needed. Reply with the "
  "improved answer alone."
)


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"run": "iterative", "seed": 0})
  c.task = common.deepscaler()
  c.eval_task = common.math500()
  c.budget = dict(fn="fixed", target=2048)
  c.reward = dict(fn="kimi", alpha=0.2)
  c.refine = dict(instruction=INSTRUCTION)
  c.pairing = dict(fn="refined_vs_first", min_gap=0.1)
  c.loss = dict(
    fn="combined",
    dpo=dict(fn="dpo", beta=0.1),
    nll=dict(fn="nll"),
    by=dict(dpo=1.0, nll=0.2),
  )
  c.weights = dict(fn="sequence_mean")
  c.reference = dict(fn="latest")
  c.policy = common.pretrained("Qwen2.5-7B-Instruct")
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(slots=128)
  c.optimizer = dict(fn="adamw", learning_rate=5e-7)
  c.mesh = common.fsdp()
  c.round = dict(prompts=1024, group_size=2, updates=8)
  c.train = dict(
    steps=96, prompts=128, max_tokens=2048, max_prompt_tokens=3328, micro_batches=16, pack=8192
  )
  c.eval = dict(every=32, prompts=512)
  c.checkpoint = dict(every=16, keep=1)
  if is_smoke(mode):
    shrink_rounds(c)
    c.refine.instruction = "Again."
    c.pairing.min_gap = 0.0
    c.round.group_size = 2
  return c


def sweep(add):
  for share in (0.0, 0.2, 1.0):
    add({"loss.by.nll": share})

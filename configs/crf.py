"""CRF: a right answer earns more the more concise it is found, most of all in easy groups.

Source  arXiv:2511.09158, from secondary sources. Stand-in: a reward model of the scores that one
        has (configs/conciseness_reward_model.py), where theirs is not published; alpha and the
        schedule of the annealing are ours
Tier    B
Data    MATH's train split as JSON lines in data/math.jsonl
First   a run of configs/conciseness_reward_model.py in runs/conciseness_reward_model
Run     python -m experiments.train --config=configs/crf.py --workdir=$WORKDIR
Smoke   the same with --config=configs/crf.py:smoke (one CPU, under a minute); no
        model scores there, but the share of words said for the first time
Result  not run yet
"""

from ml_collections import config_dict

from configs.smoke import is_smoke, shrink

BOXED = "{question}\nPut your final answer within \\boxed{}."


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=4096)
  c.reward = dict(fn="conciseness", alpha=0.1, anneal_steps=500)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = dict(fn="pretrained", path="models/Qwen2.5-7B", dtype="bfloat16", remat="full")
  c.task = dict(
    fn="jsonl",
    path="data/math.jsonl",
    question="problem",
    answer="answer",
    difficulty="level",
    extract="boxed",
    template=BOXED,
  )
  c.learned = dict(conciseness=dict(path="runs/conciseness_reward_model"))
  c.sampling = dict(temperature=1.0, dtype="bfloat16")
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = dict(data=1, fsdp=-1)
  c.train = dict(
    steps=500, prompts=128, group_size=8, max_tokens=4096, max_prompt_tokens=1024, micro_batches=16
  )
  c.eval = dict(every=100, prompts=512)
  if is_smoke(mode):
    shrink(c).budget = dict(fn="fixed", target=16)
    del c.learned
    c.task.signals = dict(fn="distinct_words")
  return c


def sweep(add):
  for alpha in (0.0, 0.1, 0.3):
    add({"reward.alpha": alpha})

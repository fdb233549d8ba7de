"""AutoRule: a learned or verified reward, plus the share of explicit rules that a response keeps.

  autorule.py         AutoRule by patterns: the verdict, plus the share of expressions that match.
  autorule.py:judged  AutoRule: a reward model's score, plus the share of rules that a judge sees.

Source  arXiv:2506.15651, abstract and README. The policy judges here; `learned.rules.judge` names
        another model. Stand-in: by default, regular expressions where a model verifies extracted
        rules, a verdict where a reward model scores; the wording of all requests is ours
Tier    B
Data    GSM8K's train split as JSON lines in data/gsm8k.jsonl;
        evaluated on data/gsm8k_test.jsonl
First   for :judged, a run of configs/reward_model.py in runs/reward_model, and
        lcrl-rules --model=... --rows=... --out=runs/rules
Run     lcrl-train --config=configs/autorule.py --workdir=$WORKDIR
Smoke   the same with --config=configs/autorule.py:smoke or :judged,smoke (one CPU, under a minute)
Fits    h100:4: 68 of 80 GiB a device, at least 24 s a step
        v5p:2x2x1: 68 of 95 GiB a device, at least 45 s a step
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "judged")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = dict(fn="fixed", target=1024)
  c.reward = dict(fn="rule_fraction", rules=("shows_steps", "one_answer", "no_hedging"), weight=1.0)
  c.filter = dict(fn="keep_all")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("Qwen2.5-1.5B-Instruct")
  c.task = common.gsm8k(
    signals=dict(
      fn="patterns",
      shows_steps=r"=",
      one_answer=r"^(?!.*answer is.*answer is)",
      no_hedging=r"^(?!.*(perhaps|maybe|not sure))",
    )
  )
  c.eval_task = common.gsm8k_test()
  if variant_of(mode, VARIANTS) == "judged":
    c.reward = dict(fn="learned", name="rules", base=dict(fn="learned", name="helpful"))
    c.learned = dict(
      helpful=dict(path="runs/reward_model"), rules=dict(rules="runs/rules/rules.json")
    )
    c.policy = common.pretrained("Llama-3-Base-8B-SFT")
    c.task = common.gsm8k()
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6)
  c.mesh = common.fsdp()
  c.train = common.train(steps=1000, prompts=64, group_size=8, max_tokens=1024, micro_batches=8)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c)
    if "learned" in c:
      rules = ["It shows its steps.", "It gives one answer."]
      c.learned = dict(helpful=dict(untrained=1), rules=dict(rules=rules))
  return c


def sweep(add, variant):
  del variant
  for weight in (0.0, 0.5, 1.0):
    add({"reward.weight": weight})

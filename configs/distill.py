"""Merging of specialists: the policy samples, and the specialist of each effort scores its tokens.

  distill.py     Merging by effort: a specialist of each effort scores the policy's own tokens.
  distill.py:rl  Specialists beside a reward: by domain and effort, their term joins the advantages.

Source  arXiv:2607.24653, section 4.1.2, as summarised: the advantage of a token is the log of its
        probability under the specialist over that under the policy, cut at R_max; nine specialists,
        of three domains and three efforts. Stand-in: R_max and sizes, which are not published, the
        reward beside it, and the learning rate: experiments/studies/qwen_math follows its teachers
        at 1e-5, and hardly at 2e-6
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl, with a
        field domain for the second variant; evaluated on data/math500.jsonl. The specialists are
        folders of runs, such as of configs/k3_effort.py with one effort, or of models
Run     lcrl-train --config=configs/distill.py --workdir=$WORKDIR
Smoke   the same with --config=configs/distill.py:smoke or :rl,smoke (one CPU, under a minute)
Fits    h100:4: 46 of 80 GiB a device, at least 69 s a step
        v5p:2x2x1: 46 of 95 GiB a device, at least 120 s a step
Result  not run yet
"""

from pathlib import Path

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("", "rl")
ASK = (" Effort: low.", " Effort: high.", " Effort: max.")
EFFORTS = (0.5, 1.0, 1.5)
NAMES = ("low", "high", "max")


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  variant = variant_of(mode, VARIANTS)
  c = config_dict.ConfigDict({"run": variant or "distill", "seed": 0})
  c.budget = dict(fn="effort", efforts=EFFORTS, tokens=8192, cap=8192)
  c.teachers = dict(models=[f"runs/{name}" for name in NAMES])
  c.loss = dict(fn="clipped_surrogate", distill=dict(fn="reverse_kl", coefficient=1.0, limit=5.0))
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained("DeepSeek-R1-Distill-Qwen-1.5B")
  c.task = common.deepscaler(render=dict(fn="suffix", templates=ASK))
  if variant == "rl":
    c.reward = dict(fn="correctness")
    c.filter = dict(fn="keep_all")
    c.advantage = dict(fn="group_normalized")
    c.loss.distill.coefficient = 0.1
    c.task.keep = ("domain",)
    models = {domain: [f"runs/{domain}_{name}" for name in NAMES] for domain in ("math", "code")}
    c.teachers = dict(field="domain", models=models)
  c.eval_task = common.math500(render=c.task.render, efforts=EFFORTS)
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6 if variant == "rl" else 1e-5)
  c.mesh = common.fsdp()
  c.train = common.train(steps=300, prompts=128, group_size=4, max_tokens=8192, micro_batches=16)
  c.eval = common.evaluation()
  if is_smoke(mode, VARIANTS):
    shrink(c).budget.update(tokens=16, cap=16)
    small = dict(fn="fresh", vocab_size=258)
    wide = dict(small, mlp_size=32)
    models = [small, wide, wide]
    c.teachers = dict(models=models)
    if variant == "rl":
      path = str(Path(__file__).with_name("smoke_domains.jsonl"))
      c.task = common.deepscaler(path, keep=("domain",), render=c.task.render)
      c.teachers = dict(field="domain", models=dict(math=models, code=small))
  return c


def sweep(add, variant):
  del variant
  for limit in (1.0, 5.0, 20.0):
    add({"loss.distill.limit": limit})

"""Cold start: supervised fine-tuning that gives a policy what its RL stage builds on.

  cold_start.py                  Light-R1's first stage: a teacher's right answers to hard problems.
  cold_start.py:light_r1_second  Light-R1's second stage: problems that the teacher fails at times.
  cold_start.py:adactrl          AdaCtrl's cold start: [Easy] and short, or [Hard] and long.
  cold_start.py:two_modes        Adaptive Deep Reasoning's cold start: each problem short and long.
  cold_start.py:mixchain         CoT-Valve's progressive compression: adapters from long to short.
  cold_start.py:cot_valve        CoT-Valve's precise tuning: each chain at a strength of its own.

Source  arXiv:2503.10460 (32k tokens; 76,000 and 3,000 problems), arXiv:2505.18822,
        arXiv:2505.20101 and arXiv:2502.09601; steps and rates of the last three are ours
Data    lcrl-cold-start --kind=light_r1_first ... --out=data/light_r1_first.jsonl,
        and likewise for the others, from answers of evaluations
Run     lcrl-train --config=configs/cold_start.py --workdir=$WORKDIR
Smoke   the same with --config=configs/cold_start.py:smoke or :adactrl,smoke (one CPU, under a
        minute)
Fits    h100:16: 69 of 80 GiB a device, at least 91 s a step, with train.micro_batches=64,
        mesh.tensor=8, train.prompts=16
        v5p:2x2x4: 79 of 95 GiB a device, at least 195 s a step, with train.micro_batches=16,
        train.prompts=16, mesh.tensor=2
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink_pairs
from lcrl.commands.modes import is_smoke, variant_of

VARIANTS = ("light_r1_first", "light_r1_second", "adactrl", "two_modes", "mixchain", "cot_valve")
SETTINGS = {  # policy, window, steps, learning rate
  "light_r1_first": ("Qwen2.5-32B", 32768, 1500, 1e-5),
  "light_r1_second": ("Light-R1-SFT-stage1", 32768, 120, 5e-6),
  "adactrl": ("Qwen2.5-7B-Instruct", 16384, 300, 1e-5),
  "two_modes": ("Qwen2.5-7B-Instruct", 16384, 300, 1e-5),
  "mixchain": ("DeepSeek-R1-Distill-Qwen-7B", 16384, 300, 4e-5),
  "cot_valve": ("DeepSeek-R1-Distill-Qwen-7B", 16384, 300, 4e-5),
}


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  variant = variant_of(mode, VARIANTS)
  policy, window, steps, rate = SETTINGS[variant]
  c = config_dict.ConfigDict({"run": "sft", "seed": 0})
  c.loss = dict(fn="nll")
  c.weights = dict(fn="token_mean")
  c.policy = common.pretrained(policy)
  c.data = dict(
    fn="responses",
    rows=dict(fn="jsonl", path=f"data/{variant}.jsonl"),
    window=window,
    max_prompt_tokens=2048,
    held_out=0.01,
  )
  c.batches = dict(fn="stratified", size=128)
  c.sampling = common.sampling(0.7)
  c.optimizer = dict(fn="adamw", learning_rate=rate, warmup_steps=steps // 20, decay_steps=steps)
  c.mesh = common.fsdp()
  c.train = dict(
    steps=steps, max_tokens=1024, max_prompt_tokens=2048, micro_batches=16, pack=window
  )
  c.eval = common.pairs_evaluation()
  if variant == "mixchain":  # one epoch, so that the levels come in their order
    c.batches = dict(fn="progressive", size=128)
  if variant in ("mixchain", "cot_valve"):
    c.lora = dict(rank=2, alpha=8.0)
  if variant == "cot_valve":
    c.train.update(pack=None, strengths=True)
  if is_smoke(mode, VARIANTS):
    shrink_pairs(c, rows="smoke_scores.jsonl")
    if variant == "mixchain":
      c.batches.fn = "progressive"
    if variant == "cot_valve":
      c.train.update(pack=None, strengths=True)
  return c


def sweep(add, variant):
  rate = SETTINGS[variant][-1]
  for value in (rate / 2, rate):
    add({"optimizer.learning_rate": value})

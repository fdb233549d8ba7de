"""ThinkDial: high, medium and low effort by the system prompt, and a price on thinking that leaks.

Source  arXiv:2508.18773 (weights 0, 0.5 and 1 of Kimi's length bonus, 0.5 for leaks; 95 steps of
        high effort with groups replaced, then 40 of all three; 256 prompts, 16 samples, 32,768
        tokens, lr 1e-6, 20 steps of warmup, clip 0.2 and 0.28). Lengths at medium and low effort
        are meant to be 50 and 25 % of the start's, as in its supervised data. Stand-in: a 7B model
        for 32B, prompts in our words, open problems for the authors' own, and cut chains of
        `lcrl-cold-start --kind=budget_modes` for those data, trained on as
        configs/cold_start.py:two_modes does
Tier    B
Data    questions with answers as JSON lines, such as DeepScaleR's, in data/deepscaler.jsonl;
        evaluated on data/math500.jsonl
Run     lcrl-train --config=configs/think_dial.py --workdir=$WORKDIR
Smoke   the same with --config=configs/think_dial.py:smoke (one CPU, under a minute)
Fits    h100:32: 46 of 80 GiB a device, at least 2,706 s a step, with train.micro_batches=1,
        sampling.slots=16, train.pack=33792, train.micro_tokens=33792
        v5p:2x4x4: 75 of 95 GiB a device, at least 2,937 s a step, with train.micro_batches=1,
        sampling.slots=32, train.pack=33792, train.micro_tokens=33792
Result  not run yet
"""

from ml_collections import config_dict

from configs import common
from configs.smoke import shrink
from lcrl.commands.modes import is_smoke
from lcrl.data.cold_start import BUDGET_MODES

PROMPTS = tuple(system for system, *_ in BUDGET_MODES)  # as in the supervised data
LEAK = (
  r"</think>.*\b(Wait|Hmm|Actually|Alternatively|However|Let me (think|reconsider|check|verify))\b"
)
BUDGET = dict(fn="effort", efforts=(1.0, 0.5, 0.25), tokens=32768, cap=32768)


def dial(leak: float) -> list[dict]:
  """then: the sections of the second phase."""
  reward = dict(
    fn="effort",
    efforts=(1.0, 0.5, 0.25),
    reference=dict(fn="first_mean_reference", rows=40_315),
    term=dict(fn="level_shortness", weights=(0.0, 0.5, 1.0)),
    base=dict(fn="leak_penalty", size=leak),
  )
  return [dict(at=95, budget=dict(BUDGET), reward=reward, filter=dict(fn="keep_all"))]


def get_config(mode: str = "full") -> config_dict.ConfigDict:
  c = config_dict.ConfigDict({"seed": 0})
  c.budget = BUDGET | dict(shares=(1.0, 0.0, 0.0))
  c.reward = dict(fn="correctness")
  c.filter = dict(fn="mixed_correctness")
  c.advantage = dict(fn="group_normalized")
  c.loss = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
  c.weights = dict(fn="token_mean")
  c.then = dial(0.5)
  c.policy = common.pretrained("Qwen2.5-7B-budget-modes")
  c.task = common.deepscaler(
    render=dict(fn="system", templates=PROMPTS), signals=dict(fn="patterns", leak=LEAK)
  )
  c.eval_task = common.math500(render=c.task.render, levels=(0, 1, 2))
  c.sampling = common.sampling()
  c.optimizer = dict(fn="adamw", learning_rate=1e-6, warmup_steps=20)
  c.mesh = common.fsdp()
  c.train = common.train(
    steps=135, prompts=256, group_size=16, max_tokens=32768, micro_batches=16, max_rounds=3
  )
  c.eval = common.evaluation()
  if is_smoke(mode):
    shrink(c)
    c.then[0].update(at=1)
    for budget in (c.budget, c.then[0]["budget"]):
      budget.update(tokens=16, cap=16)
    c.then[0]["reward"]["reference"]["rows"] = c.task.size
    c.train.max_rounds = 2
  return c


def sweep(add):
  for size in (0.0, 0.25, 0.5):
    add({"then": dial(size)})

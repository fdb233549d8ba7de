"""The methods of the study: sections of a config, and the coefficient that is chosen on validation.

Lengths are those of this study: answers of a few hundred tokens, cut at `CAP`. Six kinds:

rl          learns from sampled answers and their verdicts
distill     learns from what other methods' policies say of its sampled answers
preference  learns from pairs of the start's own answers
sft         imitates the start's own answers
free        trains nothing: the start answers in another way
merge       a point on the line from the start through a trained policy
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

BOXED = "{question}\nPlease reason step by step, and put your final answer within \\boxed{}."
CAP = 512  # tokens of an answer in training
ROWS = 6990  # problems of train.jsonl
SECTIONS: dict[str, Any] = {
  "budget": dict(fn="fixed", target=CAP),
  "reward": dict(fn="correctness"),
  "filter": dict(fn="keep_all"),
  "advantage": dict(fn="group_normalized"),
  "loss": dict(fn="clipped_surrogate"),
  "weights": dict(fn="token_mean"),
}
PAIRS: dict[str, Any] = {
  "data": dict(fn="pairs", rows="pairs"),
  "batches": dict(fn="stratified", size=64),
  "reference": dict(fn="cached"),
}
IMITATION: dict[str, Any] = {
  "data": dict(fn="responses", rows="shortest"),
  "batches": dict(fn="stratified", size=64),
  "loss": dict(fn="nll"),
  "weights": dict(fn="token_mean"),
  "optimizer": dict(fn="adamw", learning_rate=1e-5),
}
DISTILLATION: dict[str, Any] = {
  "loss": dict(fn="clipped_surrogate", distill=dict(fn="reverse_kl", limit=5.0)),
  "weights": dict(fn="token_mean"),
  "optimizer": dict(fn="adamw", learning_rate=1e-5),
}
BASES = {
  "rl": SECTIONS,
  "distill": DISTILLATION,
  "preference": PAIRS,
  "sft": IMITATION,
  "free": {},
  "merge": {},
}
BUDGETS = (160, 256, CAP)  # that a policy with a dial is asked for


class Method(NamedTuple):
  paper: str
  sections: Mapping[str, Any]  # what differs from the base of its kind
  coefficient: str = ""  # dotted field of the config; "": there is none
  values: tuple[float, ...] = ()
  kind: str = "rl"
  ask: str = ""  # stands behind the question; {target} is the budget
  asked: tuple[int, ...] = ()  # budgets that it is judged at; (): nothing is asked for
  begins: str = ""  # the run whose policy it begins from, as --runs names it; "": the start
  teachers: tuple[str, ...] = ()  # the runs whose policies it learns from, one a budget
  length: float = 1.0  # steps, as a multiple of the others'


def _reward(fn: str, **arguments: Any) -> dict[str, Any]:
  return {"reward": dict(fn=fn, **arguments)}


LEVELS = {"budget": dict(fn="uniform_level", targets=BUDGETS, cap=CAP)}


def _dial(**reward: Any) -> dict[str, Any]:
  return LEVELS | {"reward": reward, "weights": dict(fn="token_mean")}


AT_MOST: Any = dict(ask=" Use at most {target} tokens.", asked=BUDGETS)
TARGET = {"budget": dict(fn="fixed", target=192, cap=CAP)}
LIMIT = {"budget": dict(fn="fixed", target=256)}
HIGHER = dict(fn="clipped_surrogate", clip_low=0.2, clip_high=0.28)
METHODS = {
  "grpo": Method("2402.03300", {"weights": dict(fn="sequence_mean")}),
  "dr_grpo": Method(
    "2503.20783",
    {"advantage": dict(fn="group_centered"), "weights": dict(fn="fixed_length", length=CAP)},
  ),
  "dapo": Method(
    "2503.14476",
    _reward("soft_overlong", max_length=CAP, buffer=CAP // 4)
    | {"filter": dict(fn="mixed_correctness"), "loss": HIGHER},
    "reward.buffer",
    (128, 256, 384),
  ),
  "naive": Method(
    "correctness - alpha * tokens",
    _reward("length_penalty", alpha=5e-4),
    "reward.alpha",
    (2e-4, 1e-3, 5e-3),
  ),
  "efficient_reasoning": Method(
    "2502.04463",
    _reward("sigmoid_length", alpha=0.2) | {"advantage": dict(fn="leave_one_out")},
    "reward.alpha",
    (0.1, 0.2, 0.4),
  ),
  "kimi": Method("2501.12599", _reward("kimi", alpha=0.4), "reward.alpha", (0.2, 0.4, 1.0)),
  "laser": Method(
    "2505.15612",
    _reward("step_bonus", alpha=0.5) | TARGET,
    "budget.target",
    (128, 192, 256),
  ),
  "laser_d": Method(
    "2505.15612",
    _reward("laser_d", lower=64, upper=CAP, interval=32, initial=256, alpha=0.5)
    | {"monitor": dict(every=10, prompts=128)},
    "reward.alpha",
    (0.25, 0.5, 1.0),
  ),
  "alp": Method("2506.05256", _reward("alp", beta=1e-3), "reward.beta", (3e-4, 1e-3, 3e-3)),
  "dler": Method(
    "2510.15110",
    _reward("truncation")
    | LIMIT
    | {
      "filter": dict(fn="mixed_correctness"),
      "advantage": dict(fn="reinforce_baseline"),
      "loss": HIGHER,
    },
    "budget.target",
    (192, 256, 320),
  ),
  "hapo": Method("2505.11225", _reward("hapo", rows=ROWS, weight=1.0), "reward.weight", (0.3, 1.0)),
  "gr3": Method("2603.10535", _reward("gr3", alpha=0.33), "reward.alpha", (0.1, 0.33, 1.0)),
  "shorter_better": Method(
    "2504.21370",
    _reward("shorter_better", alpha=2.0, beta=5e-3),
    "reward.beta",
    (1e-3, 5e-3, 2e-2),
  ),
  "drpo": Method(
    "2510.04474",
    {"loss": dict(fn="drpo", max_length=CAP, temperature=0.1, tau=10.0, delta=1e-4, beta=1e3)},
    "loss.temperature",
    (0.03, 0.1, 0.3),
  ),
  "siri": Method(
    "2509.25176",
    {
      "budget": dict(
        fn="scheduled", schedule=dict(fn="cosine_cycle", low=192, high=CAP, period=50)
      ),
      "loss": HIGHER,
    },
    "budget.schedule.low",
    (128, 192, 256),
  ),
  "l1_max": Method(
    "2503.04697",
    _reward("max_length", alpha=0.01, delta=0.5)
    | {"budget": dict(fn="uniform", low=64, high=CAP, cap=CAP)},
    "reward.alpha",
    (3e-3, 0.01, 0.03),
    ask=" Think for maximum {target} tokens.",
    asked=BUDGETS,
  ),
  "curriculum": Method(
    "2508.08940",
    _reward(
      "curriculum",
      score=dict(fn="triangular"),
      correct_weight=0.7,
      length_weight=0.3,
      format_weight=0.0,
    )
    | {
      "budget": dict(
        fn="scheduled",
        schedule=dict(fn="exponential_decay", start=320, decay=0.8, interval=20),
        cap=CAP,
      )
    },
    "reward.length_weight",
    (0.1, 0.3, 0.6),
  ),
  "leash": Method(
    "2512.21540",
    _reward(
      "leash",
      target=192,
      start=0.2,
      step_size=0.05,
      base=dict(fn="correctness", right=1.0, wrong=-1.0),
    )
    | {"filter": dict(fn="mixed_correctness"), "loss": HIGHER},
    "reward.target",
    (128, 192, 256),
  ),
  "short_rl": Method(
    "2505.12284",
    _reward("short_rl", slack=25.0, tolerance=0.05),
    "reward.slack",
    (10.0, 25.0, 50.0),
  ),
  "on_policy_sft": Method(
    "2602.13407",
    _reward("truncation")
    | LIMIT
    | {
      "filter": dict(fn="positive_reward"),
      "advantage": dict(fn="raw"),
      "loss": dict(fn="cispo", lower=1.0, upper=1.0),
    },
    "budget.target",
    (192, 256, 320),
  ),
  # One policy for all budgets: as many steps as policies of one budget take together. Beside it
  # one of one budget, for as many.
  "laser_long": Method(
    "2505.15612, as long as a dial",
    _reward("step_bonus", alpha=0.5) | {"budget": dict(fn="fixed", target=160, cap=CAP)},
    "budget.target",
    (160,),
    length=float(len(BUDGETS)),
  ),
  "dial": Method(
    "LASER's bonus within the budget that the prompt asks for",
    _dial(fn="step_bonus", alpha=0.5),
    "reward.alpha",
    (0.25, 0.5, 1.0),
    length=float(len(BUDGETS)),
    **AT_MOST,
  ),
  "dial_exact": Method(
    "2503.04697: L1-Exact's price of a distance to the budget",
    _dial(fn="exact_length", alpha=1e-3),
    "reward.alpha",
    (3e-4, 1e-3, 3e-3),
    length=float(len(BUDGETS)),
    **AT_MOST,
  ),
  "distill": Method(
    "2607.24653: each budget's own policy scores the answers",
    LEVELS,
    "optimizer.learning_rate",
    (2e-6, 1e-5, 3e-5),
    kind="distill",
    teachers=("laser:160", "laser:256", "grpo"),
    **AT_MOST,
  ),
  "told": Method(
    "right answers of the start, asked for in the least budget that holds them",
    {"data": dict(fn="responses", rows="told")},
    kind="sft",
    **AT_MOST,
  ),
  "sft": Method("the shortest right answer of the start", {}, kind="sft"),
  "dpo": Method(
    "2305.18290",
    {"loss": dict(fn="dpo", beta=0.1)},
    "loss.beta",
    (0.03, 0.1, 0.3),
    kind="preference",
    length=0.5,  # about one pass
  ),
  "simpo": Method(
    "2405.14734",
    {"loss": dict(fn="simpo", beta=2.0, margin=0.5), "reference": None},
    "loss.margin",
    (0.1, 0.5, 1.0),
    kind="preference",
    length=0.5,  # about one pass
  ),
  "ld_dpo": Method(
    "2409.06411",
    {"loss": dict(fn="ld_dpo", beta=0.1, alpha=0.5)},
    "loss.alpha",
    (0.25, 0.5, 0.75),
    kind="preference",
    length=0.5,  # about one pass
  ),
  "r_dpo": Method(
    "2403.19159",
    {"loss": dict(fn="r_dpo", beta=0.1, alpha=0.005)},
    "loss.alpha",
    (1e-3, 5e-3, 0.05),
    kind="preference",
    length=0.5,  # about one pass
  ),
  "brevity": Method(
    "a prompt that asks for brevity", {}, kind="free", ask=" Be as brief as you can."
  ),
  "budget_forcing": Method(
    "2501.19393",
    {
      "sampling": dict(
        control=dict(
          fn="thinking_budget",
          budget=160,
          end_text="\\boxed{",
          forced_text="\n\nThe final answer is \\boxed{",
          answer_tokens=32,
        ),
        count_forced=True,
      )
    },
    "sampling.control.budget",
    (96, 160, 256),
    kind="free",
  ),
  "eos_ramp": Method(
    "the end token grows likelier with every token",
    {"sampling": dict(control=dict(fn="eos_ramp", ramp_end=1024, max_bias=15.0))},
    "sampling.control.ramp_end",
    (512, 1024, 2048),
    kind="free",
  ),
  "line": Method(
    "2502.09601: a part of the way from the start to LASER's policy",
    {"share": 0.5},
    "share",
    (0.25, 0.5, 1.5),
    kind="merge",
    begins="laser",
  ),
}


def coefficient(name: str) -> float | None:
  """What stands here for the coefficient of a method; None: it has none.

  >>> coefficient("laser"), coefficient("siri"), coefficient("grpo")
  (192, 192, None)
  """
  method = METHODS[name]
  found: Any = sections(name)
  for key in method.coefficient.split(".") if method.coefficient else ():
    found = found[key]
  return found if method.coefficient else None


def named(text: str) -> tuple[str, float | None]:
  """The method and coefficient that a text names; without a coefficient, the one that stands here.

  >>> named("laser:128"), named("laser"), named("grpo")
  (('laser', 128), ('laser', 192), ('grpo', None))
  """
  name, colon, value = text.partition(":")
  if name not in METHODS:
    raise ValueError(f"--runs names {name!r}, which is not one of {', '.join(METHODS)}.")
  number = float(value) if colon else coefficient(name)
  return name, int(number) if number is not None and number == int(number) else number


def needed() -> set[tuple[str, float | None]]:
  """Methods and coefficients whose policies other methods begin or learn from."""
  return {named(x) for m in METHODS.values() for x in (m.begins, *m.teachers) if x}


def sections(name: str, value: float | None = None) -> dict[str, Any]:
  """The sections of a method, with `value` for its coefficient; None: the one that stands here.

  >>> sections("laser", 128)["budget"]
  {'fn': 'fixed', 'target': 128, 'cap': 512}
  """
  if name not in METHODS:
    raise ValueError(f"{name!r} is not one of {', '.join(METHODS)}.")
  method = METHODS[name]
  config = copy.deepcopy({**BASES[method.kind], **method.sections})
  if value is not None:
    *path, field = method.coefficient.split(".")
    section = config
    for key in path:
      section = section[key]
    if not field:
      raise ValueError(f"{name} has no coefficient, got {value}.")
    section[field] = value
  return config

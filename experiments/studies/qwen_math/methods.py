"""The methods of the study: sections of a config, and the coefficient that is chosen on validation.

Lengths are those of this study: answers of a few hundred tokens, cut at `CAP`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

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


class Method(NamedTuple):
  paper: str
  sections: Mapping[str, Any]  # what differs from SECTIONS
  coefficient: str = ""  # dotted field of the config; "": there is none
  values: tuple[float, ...] = ()


def _reward(fn: str, **arguments: Any) -> dict[str, Any]:
  return {"reward": dict(fn=fn, **arguments)}


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
}


def sections(name: str, value: float | None = None) -> dict[str, Any]:
  """The sections of a method, with `value` for its coefficient; None: the one that stands here.

  >>> sections("laser", 128)["budget"]
  {'fn': 'fixed', 'target': 128, 'cap': 512}
  """
  if name not in METHODS:
    raise ValueError(f"{name!r} is not one of {', '.join(METHODS)}.")
  method = METHODS[name]
  config = copy.deepcopy({**SECTIONS, **method.sections})
  if value is not None:
    *path, field = method.coefficient.split(".")
    section = config
    for key in path:
      section = section[key]
    if not field:
      raise ValueError(f"{name} has no coefficient, got {value}.")
    section[field] = value
  return config

"""Slot 2: what a rollout is worth. One file a family; a stage shapes the reward of its `base`.

Bare functions take arrays with any leading axes. A stage reads what it compares with from the
rollouts (`budget.target`), adds its term to the reward of `base` (plain correctness by default)
and hands the base's state on, so terms compose: `dict(fn="soft_overlong", base=dict(fn="hapo"))`.
"""

from lcrl.rewards import (
  base,
  curricula,
  difficulty,
  group,
  history,
  repetition,
  signals,
  target,
)
from lcrl.rewards.base import *  # noqa: F403
from lcrl.rewards.curricula import *  # noqa: F403
from lcrl.rewards.difficulty import *  # noqa: F403
from lcrl.rewards.group import *  # noqa: F403
from lcrl.rewards.history import *  # noqa: F403
from lcrl.rewards.repetition import *  # noqa: F403
from lcrl.rewards.signals import *  # noqa: F403
from lcrl.rewards.target import *  # noqa: F403

__all__ = [
  *base.__all__,
  *curricula.__all__,
  *difficulty.__all__,
  *group.__all__,
  *history.__all__,
  *repetition.__all__,
  *signals.__all__,
  *target.__all__,
]

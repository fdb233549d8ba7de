"""Slot 2: what a rollout is worth. One file a family; a stage shapes the reward of its `base`.

Bare functions take arrays with any leading axes; those that compare a group, [..., G], want a group
a row: [B, G]. A stage reads what it compares with from the
rollouts (`budget.target`), adds its term to the reward of `base` (plain correctness by default)
and hands the base's state on, so terms compose: `dict(fn="soft_overlong", base=dict(fn="hapo"))`.
"""

from lcrl.rewards import (
  base,
  budgeted,
  composite,
  constraint,
  curricula,
  curves,
  difficulty,
  group,
  history,
  modes,
  parts,
  reference,
  repetition,
  signals,
  target,
)
from lcrl.rewards.base import *  # noqa: F403
from lcrl.rewards.budgeted import *  # noqa: F403
from lcrl.rewards.composite import *  # noqa: F403
from lcrl.rewards.constraint import *  # noqa: F403
from lcrl.rewards.curricula import *  # noqa: F403
from lcrl.rewards.curves import *  # noqa: F403
from lcrl.rewards.difficulty import *  # noqa: F403
from lcrl.rewards.group import *  # noqa: F403
from lcrl.rewards.history import *  # noqa: F403
from lcrl.rewards.modes import *  # noqa: F403
from lcrl.rewards.parts import *  # noqa: F403
from lcrl.rewards.reference import *  # noqa: F403
from lcrl.rewards.repetition import *  # noqa: F403
from lcrl.rewards.signals import *  # noqa: F403
from lcrl.rewards.target import *  # noqa: F403

__all__ = [
  *base.__all__,
  *budgeted.__all__,
  *composite.__all__,
  *constraint.__all__,
  *curricula.__all__,
  *curves.__all__,
  *difficulty.__all__,
  *group.__all__,
  *history.__all__,
  *modes.__all__,
  *parts.__all__,
  *reference.__all__,
  *repetition.__all__,
  *signals.__all__,
  *target.__all__,
]

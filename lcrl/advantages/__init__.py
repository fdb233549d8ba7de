"""Slot 4: what a rollout is worth compared with its group, or with the batch.

Group statistics run along the last axis, over the rollouts that `keep` selects; the others get 0.
A rollout alone in its group has nothing to be compared with. Like verl, and unlike TRL, the bare
functions keep its raw reward (`lone_raw=True`). A run refuses groups of one, and a rollout that
the filter left alone gets 0 from the stages unless they are told otherwise.
"""

from lcrl.advantages import canon, components, group, length, returns
from lcrl.advantages.canon import *  # noqa: F403
from lcrl.advantages.components import *  # noqa: F403
from lcrl.advantages.group import *  # noqa: F403
from lcrl.advantages.length import *  # noqa: F403
from lcrl.advantages.returns import *  # noqa: F403

__all__ = [
  *canon.__all__,
  *components.__all__,
  *group.__all__,
  *length.__all__,
  *returns.__all__,
]

"""Slot 4: what a rollout is worth compared with its group, or with the batch.

Group statistics run along the last axis, over the rollouts that `keep` selects; the others get 0.
A rollout alone in its group has nothing to be compared with and gets 0, as in TRL, from bare
functions and stages alike; `lone_raw=True` keeps its raw reward, as in verl. A run refuses groups
of one; a filter may leave one alone. Inside `jax.shard_map` groups are whole on a device, and what
is taken over the batch has an `axis_name`.
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

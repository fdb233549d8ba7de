"""Slot 5: what the update minimises. Bare functions of arrays, and the stages that call them."""

from lcrl.losses import draft_tree as _draft_tree
from lcrl.losses import log_probs as _log_probs
from lcrl.losses import policy as _policy
from lcrl.losses import preference as _preference
from lcrl.losses import reward_model as _reward_model
from lcrl.losses import weights as _weights
from lcrl.losses.draft_tree import *  # noqa: F403
from lcrl.losses.log_probs import *  # noqa: F403
from lcrl.losses.policy import *  # noqa: F403
from lcrl.losses.preference import *  # noqa: F403
from lcrl.losses.reward_model import *  # noqa: F403
from lcrl.losses.weights import *  # noqa: F403

__all__ = [
  *_draft_tree.__all__,
  *_log_probs.__all__,
  *_policy.__all__,
  *_preference.__all__,
  *_reward_model.__all__,
  *_weights.__all__,
]

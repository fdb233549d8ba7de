"""Slot 5: what the update minimises. Bare functions of arrays, and the stages that call them."""

from lcrl.losses import policy as _policy
from lcrl.losses import weights as _weights
from lcrl.losses.policy import *  # noqa: F403
from lcrl.losses.weights import *  # noqa: F403

__all__ = [*_policy.__all__, *_weights.__all__]

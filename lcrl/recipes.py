"""A method is five stages: budget, reward, filter, advantage, loss. Only this module knows all five."""

from __future__ import annotations

from lcrl.types import Recipe, Stage

__all__ = ["Recipe", "Stage"]

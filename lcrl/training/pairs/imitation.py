"""What `loss.fn` of a config names where run="sft": only losses of single answers."""

from lcrl.losses.preference.stages import nll

__all__ = ["nll"]

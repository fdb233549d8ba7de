"""The losses that `loss.fn` can name with run="sft": those of single answers."""

from lcrl.losses.preference.stages import nll

__all__ = ["nll"]

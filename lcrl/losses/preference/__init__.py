"""Preference losses: arrays in, one value a pair out; the batch loss is their mean.

Four choices make a method, and any goes with any:

  weights = desensitized_weights(mask, other_mask, alpha=0.5)     what tokens count (sequences.py)
  u = sequence_log_ratios(log_probs, ref_log_probs, weights)      what is compared
  loss = dpo_loss(u, v, beta=0.1, link=hinge_link)                how (referenced.py, links.py)
  loss = combined_loss((1.0, loss), (0.1, nll_loss(...)))         with what else
"""

from lcrl.losses.preference import (
  adaptive,
  links,
  reference_free,
  referenced,
  rewards,
  sequences,
  unpaired,
)
from lcrl.losses.preference.adaptive import *  # noqa: F403
from lcrl.losses.preference.links import *  # noqa: F403
from lcrl.losses.preference.reference_free import *  # noqa: F403
from lcrl.losses.preference.referenced import *  # noqa: F403
from lcrl.losses.preference.rewards import *  # noqa: F403
from lcrl.losses.preference.sequences import *  # noqa: F403
from lcrl.losses.preference.unpaired import *  # noqa: F403

__all__ = [
  *adaptive.__all__,
  *links.__all__,
  *reference_free.__all__,
  *referenced.__all__,
  *rewards.__all__,
  *sequences.__all__,
  *unpaired.__all__,
]

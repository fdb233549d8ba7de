"""Preference losses as stages: what `loss.fn` of a config names where run="preference" or "sft".

  apply(state, scores, batch: PairBatch) -> (loss, state)    rewards(scores, batch) -> [B, 2]

`tokens` says which tokens count (`sums`, `means`, `desensitized`, `sampled`), `link` what a margin
costs (`logistic`, `hinge`, `robust`, `exo`, `discopop`), `divergence` what takes the place of the
log-ratio. Every loss is the mean over the valid pairs of a batch. Losses with a `likelihood` add so
much of `nll`; the config's section weights then says how its tokens count.

Besides score fields and signals of the data, `needs` may hold "ref", "weights" (a likelihood term),
"previous" (log-probs of the policy before this round) and "mismatched" (side 2, another's answer).
"""

from lcrl.losses.preference.stages import batched, parts, reference_free, referenced
from lcrl.losses.preference.stages.batched import *  # noqa: F403
from lcrl.losses.preference.stages.parts import *  # noqa: F403
from lcrl.losses.preference.stages.reference_free import *  # noqa: F403
from lcrl.losses.preference.stages.referenced import *  # noqa: F403

__all__ = [*batched.__all__, *parts.__all__, *reference_free.__all__, *referenced.__all__]

"""Preference losses as stages: what `loss.fn` of a config names where run="preference" or "sft".

  apply(state, scores, batch: PairBatch) -> (loss, state)    rewards(scores, batch) -> [B, 2]

`tokens` says which tokens count (`sums`, `means`, `desensitized`, `sampled`), `link` what a margin
costs (`logistic`, `hinge`, `robust`, `exo`, `discopop`), `divergence` what takes the place of the
log-ratio. Every loss is the mean over the valid pairs of a batch. Losses with a `likelihood` add so
much of `nll`; the config's section weights then says how its tokens count.

Besides score fields and signals of the data, `needs` may hold "ref", "weights" (a likelihood term),
"previous" (log-probs of the policy before this round) and "mismatched" (side 2, another's answer).
"""

from lcrl.losses.preference.stages.batched import aot as aot
from lcrl.losses.preference.stages.batched import bco as bco
from lcrl.losses.preference.stages.batched import beta_dpo as beta_dpo
from lcrl.losses.preference.stages.batched import kto as kto
from lcrl.losses.preference.stages.batched import lmpo as lmpo
from lcrl.losses.preference.stages.parts import alpha_divergence as alpha_divergence
from lcrl.losses.preference.stages.parts import combined as combined
from lcrl.losses.preference.stages.parts import common_length as common_length
from lcrl.losses.preference.stages.parts import desensitized as desensitized
from lcrl.losses.preference.stages.parts import discopop as discopop
from lcrl.losses.preference.stages.parts import exo as exo
from lcrl.losses.preference.stages.parts import forward_kl as forward_kl
from lcrl.losses.preference.stages.parts import hinge as hinge
from lcrl.losses.preference.stages.parts import js as js
from lcrl.losses.preference.stages.parts import logistic as logistic
from lcrl.losses.preference.stages.parts import means as means
from lcrl.losses.preference.stages.parts import nll as nll
from lcrl.losses.preference.stages.parts import robust as robust
from lcrl.losses.preference.stages.parts import sampled as sampled
from lcrl.losses.preference.stages.parts import sums as sums
from lcrl.losses.preference.stages.reference_free import alphapo as alphapo
from lcrl.losses.preference.stages.reference_free import cpo as cpo
from lcrl.losses.preference.stages.reference_free import cpo_simpo as cpo_simpo
from lcrl.losses.preference.stages.reference_free import orpo as orpo
from lcrl.losses.preference.stages.reference_free import simpo as simpo
from lcrl.losses.preference.stages.reference_free import slic as slic
from lcrl.losses.preference.stages.referenced import apo_down as apo_down
from lcrl.losses.preference.stages.referenced import apo_zero as apo_zero
from lcrl.losses.preference.stages.referenced import bco_pair as bco_pair
from lcrl.losses.preference.stages.referenced import dpo as dpo
from lcrl.losses.preference.stages.referenced import dpop as dpop
from lcrl.losses.preference.stages.referenced import inpo as inpo
from lcrl.losses.preference.stages.referenced import ipo as ipo
from lcrl.losses.preference.stages.referenced import ld_dpo as ld_dpo
from lcrl.losses.preference.stages.referenced import ln_dpo as ln_dpo
from lcrl.losses.preference.stages.referenced import longpo as longpo
from lcrl.losses.preference.stages.referenced import nca as nca
from lcrl.losses.preference.stages.referenced import r_dpo as r_dpo
from lcrl.losses.preference.stages.referenced import rpo as rpo
from lcrl.losses.preference.stages.referenced import sampo as sampo
from lcrl.losses.preference.stages.referenced import sppo as sppo
from lcrl.losses.preference.stages.referenced import sppo_hard as sppo_hard
from lcrl.losses.preference.stages.referenced import wpo as wpo

__all__ = [
  "alpha_divergence",
  "alphapo",
  "aot",
  "apo_down",
  "apo_zero",
  "bco",
  "bco_pair",
  "beta_dpo",
  "combined",
  "common_length",
  "cpo",
  "cpo_simpo",
  "desensitized",
  "discopop",
  "dpo",
  "dpop",
  "exo",
  "forward_kl",
  "hinge",
  "inpo",
  "ipo",
  "js",
  "kto",
  "ld_dpo",
  "lmpo",
  "ln_dpo",
  "logistic",
  "longpo",
  "means",
  "nca",
  "nll",
  "orpo",
  "r_dpo",
  "robust",
  "rpo",
  "sampled",
  "sampo",
  "simpo",
  "slic",
  "sppo",
  "sppo_hard",
  "sums",
  "wpo",
]

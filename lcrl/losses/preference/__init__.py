"""Preference losses: arrays in, one value a pair out; the batch loss is their mean.

Four choices make a method, and any goes with any:

  weights = desensitized_weights(mask, other_mask, alpha=0.5)     what tokens count (sequences.py)
  u = sequence_log_ratios(log_probs, ref_log_probs, weights)      what is compared
  loss = dpo_loss(u, v, beta=0.1, link=hinge_link)                how (referenced.py, links.py)
  loss = combined_loss((1.0, loss), (0.1, nll_loss(...)))         with what else
"""

from lcrl.losses.preference.adaptive import Moments as Moments
from lcrl.losses.preference.adaptive import dynamic_beta as dynamic_beta
from lcrl.losses.preference.adaptive import lmpo_margins as lmpo_margins
from lcrl.losses.preference.adaptive import typical_pairs as typical_pairs
from lcrl.losses.preference.adaptive import updated_moments as updated_moments
from lcrl.losses.preference.adaptive import wpo_weights as wpo_weights
from lcrl.losses.preference.links import discopop_link as discopop_link
from lcrl.losses.preference.links import exo_link as exo_link
from lcrl.losses.preference.links import hinge_link as hinge_link
from lcrl.losses.preference.links import logistic_link as logistic_link
from lcrl.losses.preference.links import robust_link as robust_link
from lcrl.losses.preference.reference_free import combined_loss as combined_loss
from lcrl.losses.preference.reference_free import cpo_loss as cpo_loss
from lcrl.losses.preference.reference_free import nll_loss as nll_loss
from lcrl.losses.preference.reference_free import orpo_loss as orpo_loss
from lcrl.losses.preference.reference_free import simpo_loss as simpo_loss
from lcrl.losses.preference.reference_free import slic_loss as slic_loss
from lcrl.losses.preference.referenced import aot_loss as aot_loss
from lcrl.losses.preference.referenced import apo_down_loss as apo_down_loss
from lcrl.losses.preference.referenced import apo_zero_loss as apo_zero_loss
from lcrl.losses.preference.referenced import bco_loss as bco_loss
from lcrl.losses.preference.referenced import dpo_loss as dpo_loss
from lcrl.losses.preference.referenced import dpop_loss as dpop_loss
from lcrl.losses.preference.referenced import inpo_reference as inpo_reference
from lcrl.losses.preference.referenced import ipo_loss as ipo_loss
from lcrl.losses.preference.referenced import nca_loss as nca_loss
from lcrl.losses.preference.referenced import r_dpo_loss as r_dpo_loss
from lcrl.losses.preference.referenced import sppo_hard_loss as sppo_hard_loss
from lcrl.losses.preference.referenced import sppo_loss as sppo_loss
from lcrl.losses.preference.rewards import alpha_divergence_reward as alpha_divergence_reward
from lcrl.losses.preference.rewards import cdr_reward as cdr_reward
from lcrl.losses.preference.rewards import forward_kl_reward as forward_kl_reward
from lcrl.losses.preference.rewards import implicit_reward as implicit_reward
from lcrl.losses.preference.rewards import js_reward as js_reward
from lcrl.losses.preference.rewards import power_reward as power_reward
from lcrl.losses.preference.sequences import batch_mean_weights as batch_mean_weights
from lcrl.losses.preference.sequences import common_length_weights as common_length_weights
from lcrl.losses.preference.sequences import desensitized_weights as desensitized_weights
from lcrl.losses.preference.sequences import mean_weights as mean_weights
from lcrl.losses.preference.sequences import sampled_weights as sampled_weights
from lcrl.losses.preference.sequences import sequence_log_probs as sequence_log_probs
from lcrl.losses.preference.sequences import sequence_log_ratios as sequence_log_ratios
from lcrl.losses.preference.sequences import sum_weights as sum_weights
from lcrl.losses.preference.unpaired import kto_baseline as kto_baseline
from lcrl.losses.preference.unpaired import kto_loss as kto_loss

__all__ = [
  "Moments",
  "alpha_divergence_reward",
  "aot_loss",
  "apo_down_loss",
  "apo_zero_loss",
  "batch_mean_weights",
  "bco_loss",
  "cdr_reward",
  "combined_loss",
  "common_length_weights",
  "cpo_loss",
  "desensitized_weights",
  "discopop_link",
  "dpo_loss",
  "dpop_loss",
  "dynamic_beta",
  "exo_link",
  "forward_kl_reward",
  "hinge_link",
  "implicit_reward",
  "inpo_reference",
  "ipo_loss",
  "js_reward",
  "kto_baseline",
  "kto_loss",
  "lmpo_margins",
  "logistic_link",
  "mean_weights",
  "nca_loss",
  "nll_loss",
  "orpo_loss",
  "power_reward",
  "r_dpo_loss",
  "robust_link",
  "sampled_weights",
  "sequence_log_probs",
  "sequence_log_ratios",
  "simpo_loss",
  "slic_loss",
  "sppo_hard_loss",
  "sppo_loss",
  "sum_weights",
  "typical_pairs",
  "updated_moments",
  "wpo_weights",
]

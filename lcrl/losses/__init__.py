"""Slot 5: what the update minimises. Bare functions of arrays, and the stages that call them.

`dpo_loss` and `cispo_loss` take arrays; `dpo` and `cispo` make the stages that a config names. The
building blocks of stages have names that need a context, such as `hinge`: `lcrl.losses.policy` has
those of policy losses, `lcrl.losses.preference.stages` those of preference losses, and
`lcrl.losses.reward_model` those of reward models.
"""

from lcrl.losses.correction import importance_ratio as importance_ratio
from lcrl.losses.correction import rejected_importance as rejected_importance
from lcrl.losses.correction import truncated_importance as truncated_importance
from lcrl.losses.distillation import teacher_advantage as teacher_advantage
from lcrl.losses.draft_tree import branch_ratio as branch_ratio
from lcrl.losses.draft_tree import expected_accepted_length as expected_accepted_length
from lcrl.losses.draft_tree import tree_advantage as tree_advantage
from lcrl.losses.draft_tree import tree_reward as tree_reward
from lcrl.losses.drpo import drpo as drpo
from lcrl.losses.drpo import drpo_loss as drpo_loss
from lcrl.losses.drpo import drpo_positive_weights as drpo_positive_weights
from lcrl.losses.forced_opening import forced_opening as forced_opening
from lcrl.losses.forced_opening import opening_log_probs as opening_log_probs
from lcrl.losses.kl import abs_kl as abs_kl
from lcrl.losses.kl import k1_kl as k1_kl
from lcrl.losses.kl import k2_kl as k2_kl
from lcrl.losses.kl import k3_kl as k3_kl
from lcrl.losses.kl import log_ratio as log_ratio
from lcrl.losses.kl_cov import kl_cov as kl_cov
from lcrl.losses.kl_cov import kl_cov_loss as kl_cov_loss
from lcrl.losses.log_probs import score_tokens as score_tokens
from lcrl.losses.log_probs import score_tokens_sharded as score_tokens_sharded
from lcrl.losses.mode_switch import mode_switch as mode_switch
from lcrl.losses.mode_switch import mode_switch_hinge_loss as mode_switch_hinge_loss
from lcrl.losses.mode_switch import mode_switch_logistic_loss as mode_switch_logistic_loss
from lcrl.losses.policy import cispo as cispo
from lcrl.losses.policy import clipped_surrogate as clipped_surrogate
from lcrl.losses.policy import sapo as sapo
from lcrl.losses.policy import sequence_clipped_surrogate as sequence_clipped_surrogate
from lcrl.losses.preference.adaptive import dynamic_beta as dynamic_beta
from lcrl.losses.preference.adaptive import lmpo_margins as lmpo_margins
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
from lcrl.losses.preference.stages.batched import aot as aot
from lcrl.losses.preference.stages.batched import bco as bco
from lcrl.losses.preference.stages.batched import beta_dpo as beta_dpo
from lcrl.losses.preference.stages.batched import kto as kto
from lcrl.losses.preference.stages.batched import lmpo as lmpo
from lcrl.losses.preference.stages.parts import nll as nll
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
from lcrl.losses.preference.unpaired import kto_baseline as kto_baseline
from lcrl.losses.preference.unpaired import kto_loss as kto_loss
from lcrl.losses.reward_model import bradley_terry_loss as bradley_terry_loss
from lcrl.losses.reward_model import general_preference_loss as general_preference_loss
from lcrl.losses.reward_model import score_regression_loss as score_regression_loss
from lcrl.losses.surrogates import SurrogateFractions as SurrogateFractions
from lcrl.losses.surrogates import cispo_loss as cispo_loss
from lcrl.losses.surrogates import clipped_surrogate_loss as clipped_surrogate_loss
from lcrl.losses.surrogates import sapo_loss as sapo_loss
from lcrl.losses.surrogates import sequence_ratio as sequence_ratio
from lcrl.losses.surrogates import surrogate_fractions as surrogate_fractions
from lcrl.losses.surrogates import token_ratio as token_ratio
from lcrl.losses.weights import control_token as control_token
from lcrl.losses.weights import fixed_length as fixed_length
from lcrl.losses.weights import fixed_total as fixed_total
from lcrl.losses.weights import sequence_mean as sequence_mean
from lcrl.losses.weights import sequence_sum as sequence_sum
from lcrl.losses.weights import token_mean as token_mean

__all__ = [
  "SurrogateFractions",
  "abs_kl",
  "alpha_divergence_reward",
  "alphapo",
  "aot",
  "aot_loss",
  "apo_down",
  "apo_down_loss",
  "apo_zero",
  "apo_zero_loss",
  "batch_mean_weights",
  "bco",
  "bco_loss",
  "bco_pair",
  "beta_dpo",
  "bradley_terry_loss",
  "branch_ratio",
  "cdr_reward",
  "cispo",
  "cispo_loss",
  "clipped_surrogate",
  "clipped_surrogate_loss",
  "combined_loss",
  "common_length_weights",
  "control_token",
  "cpo",
  "cpo_loss",
  "cpo_simpo",
  "desensitized_weights",
  "discopop_link",
  "dpo",
  "dpo_loss",
  "dpop",
  "dpop_loss",
  "drpo",
  "drpo_loss",
  "drpo_positive_weights",
  "dynamic_beta",
  "exo_link",
  "expected_accepted_length",
  "fixed_length",
  "fixed_total",
  "forced_opening",
  "forward_kl_reward",
  "general_preference_loss",
  "hinge_link",
  "implicit_reward",
  "importance_ratio",
  "inpo",
  "inpo_reference",
  "ipo",
  "ipo_loss",
  "js_reward",
  "k1_kl",
  "k2_kl",
  "k3_kl",
  "kl_cov",
  "kl_cov_loss",
  "kto",
  "kto_baseline",
  "kto_loss",
  "ld_dpo",
  "lmpo",
  "lmpo_margins",
  "ln_dpo",
  "log_ratio",
  "logistic_link",
  "longpo",
  "mean_weights",
  "mode_switch",
  "mode_switch_hinge_loss",
  "mode_switch_logistic_loss",
  "nca",
  "nca_loss",
  "nll",
  "nll_loss",
  "opening_log_probs",
  "orpo",
  "orpo_loss",
  "power_reward",
  "r_dpo",
  "r_dpo_loss",
  "rejected_importance",
  "robust_link",
  "rpo",
  "sampled_weights",
  "sampo",
  "sapo",
  "sapo_loss",
  "score_regression_loss",
  "score_tokens",
  "score_tokens_sharded",
  "sequence_clipped_surrogate",
  "sequence_log_probs",
  "sequence_log_ratios",
  "sequence_mean",
  "sequence_ratio",
  "sequence_sum",
  "simpo",
  "simpo_loss",
  "slic",
  "slic_loss",
  "sppo",
  "sppo_hard",
  "sppo_hard_loss",
  "sppo_loss",
  "sum_weights",
  "surrogate_fractions",
  "teacher_advantage",
  "token_mean",
  "token_ratio",
  "tree_advantage",
  "tree_reward",
  "truncated_importance",
  "wpo",
  "wpo_weights",
]


def __getattr__(name: str):
  """Names the module of a building block that is asked for here."""
  from lcrl.losses import policy, preference, reward_model
  from lcrl.losses.preference import stages

  homes = (policy, preference, stages, reward_model)
  where = [f"{home.__name__}.{name}" for home in homes if name in home.__all__]
  hint = f"; there is {' and '.join(where)}" if where else ""
  raise AttributeError(f"module 'lcrl.losses' has no attribute {name!r}{hint}")

"""Slot 2: the reward of a rollout. One file a family; a stage shapes the reward of its `base`.

Bare functions take arrays with any leading axes; those that compare the rollouts of a group take
[..., G]. A stage reads its targets from the rollouts (`budget.target`), adds its term to the reward
of `base` (plain correctness by default) and carries the state of `base`, so terms compose:
`dict(fn="soft_overlong", base=dict(fn="hapo"))`.
"""

from lcrl.rewards.base import correctness as correctness
from lcrl.rewards.base import length_penalty as length_penalty
from lcrl.rewards.base import length_penalty_reward as length_penalty_reward
from lcrl.rewards.base import soft_overlong as soft_overlong
from lcrl.rewards.base import soft_overlong_reward as soft_overlong_reward
from lcrl.rewards.base import verdict_reward as verdict_reward
from lcrl.rewards.budgeted import acoer as acoer
from lcrl.rewards.budgeted import acoer_reward as acoer_reward
from lcrl.rewards.budgeted import acoer_score as acoer_score
from lcrl.rewards.budgeted import hbpo as hbpo
from lcrl.rewards.budgeted import hbpo_peak as hbpo_peak
from lcrl.rewards.budgeted import hbpo_reward as hbpo_reward
from lcrl.rewards.composite import cumulative_regret as cumulative_regret
from lcrl.rewards.composite import mrt as mrt
from lcrl.rewards.composite import multiplicative_reward as multiplicative_reward
from lcrl.rewards.composite import progress as progress
from lcrl.rewards.composite import progress_reward as progress_reward
from lcrl.rewards.composite import regret_area as regret_area
from lcrl.rewards.composite import rule_fraction as rule_fraction
from lcrl.rewards.composite import rule_fraction_reward as rule_fraction_reward
from lcrl.rewards.constraint import Multipliers as Multipliers
from lcrl.rewards.constraint import component_mix as component_mix
from lcrl.rewards.constraint import dual_price as dual_price
from lcrl.rewards.constraint import kl_penalty as kl_penalty
from lcrl.rewards.constraint import kl_penalty_reward as kl_penalty_reward
from lcrl.rewards.constraint import lagrangian as lagrangian
from lcrl.rewards.constraint import length_dual as length_dual
from lcrl.rewards.constraint import priced_reward as priced_reward
from lcrl.rewards.constraint import update_multipliers as update_multipliers
from lcrl.rewards.curricula import band as band
from lcrl.rewards.curricula import band_score as band_score
from lcrl.rewards.curricula import curriculum as curriculum
from lcrl.rewards.curricula import curriculum_reward as curriculum_reward
from lcrl.rewards.curricula import triangular as triangular
from lcrl.rewards.curricula import triangular_score as triangular_score
from lcrl.rewards.curves import cosine_length as cosine_length
from lcrl.rewards.curves import cosine_length_reward as cosine_length_reward
from lcrl.rewards.curves import format_length as format_length
from lcrl.rewards.curves import format_length_reward as format_length_reward
from lcrl.rewards.curves import length_range as length_range
from lcrl.rewards.curves import length_range_reward as length_range_reward
from lcrl.rewards.curves import turning_score as turning_score
from lcrl.rewards.curves import word_range as word_range
from lcrl.rewards.dial import leak_penalty as leak_penalty
from lcrl.rewards.dial import leak_penalty_reward as leak_penalty_reward
from lcrl.rewards.dial import level_shortness as level_shortness
from lcrl.rewards.dial import level_shortness_reward as level_shortness_reward
from lcrl.rewards.difficulty import accuracy_level as accuracy_level
from lcrl.rewards.difficulty import covering_length as covering_length
from lcrl.rewards.difficulty import expected_right as expected_right
from lcrl.rewards.difficulty import laser_d as laser_d
from lcrl.rewards.difficulty import length_coverage as length_coverage
from lcrl.rewards.difficulty import length_thresholds as length_thresholds
from lcrl.rewards.difficulty import tiered_limit as tiered_limit
from lcrl.rewards.difficulty import tiered_truncation as tiered_truncation
from lcrl.rewards.discovered import bell_length as bell_length
from lcrl.rewards.discovered import bell_length_reward as bell_length_reward
from lcrl.rewards.discovered import right_range as right_range
from lcrl.rewards.discovered import right_range_reward as right_range_reward
from lcrl.rewards.efforts import Term as Term
from lcrl.rewards.efforts import effort as effort
from lcrl.rewards.efforts import length_gate as length_gate
from lcrl.rewards.efforts import length_gate_reward as length_gate_reward
from lcrl.rewards.efforts import length_multiplier as length_multiplier
from lcrl.rewards.efforts import length_ratio as length_ratio
from lcrl.rewards.efforts import length_ratio_reward as length_ratio_reward
from lcrl.rewards.efforts import level_price as level_price
from lcrl.rewards.efforts import level_price_reward as level_price_reward
from lcrl.rewards.efforts import target_band as target_band
from lcrl.rewards.efforts import target_band_reward as target_band_reward
from lcrl.rewards.group import easiest_groups as easiest_groups
from lcrl.rewards.group import grpo_lambda as grpo_lambda
from lcrl.rewards.group import grpo_lambda_reward as grpo_lambda_reward
from lcrl.rewards.group import kimi as kimi
from lcrl.rewards.group import kimi_reward as kimi_reward
from lcrl.rewards.group import sigmoid_length as sigmoid_length
from lcrl.rewards.group import sigmoid_length_reward as sigmoid_length_reward
from lcrl.rewards.history import cosine_history as cosine_history
from lcrl.rewards.history import cosine_history_score as cosine_history_score
from lcrl.rewards.history import hapo as hapo
from lcrl.rewards.history import hapo_mean as hapo_mean
from lcrl.rewards.history import linear_history as linear_history
from lcrl.rewards.history import linear_history_score as linear_history_score
from lcrl.rewards.history import mean_right_length as mean_right_length
from lcrl.rewards.history import shortest_right_length as shortest_right_length
from lcrl.rewards.lenient import leash as leash
from lcrl.rewards.lenient import leash_reward as leash_reward
from lcrl.rewards.lenient import short_rl as short_rl
from lcrl.rewards.lenient import short_rl_reward as short_rl_reward
from lcrl.rewards.models import density_ratio as density_ratio
from lcrl.rewards.models import density_ratio_reward as density_ratio_reward
from lcrl.rewards.models import learned as learned
from lcrl.rewards.models import learned_reward as learned_reward
from lcrl.rewards.models import preferred as preferred
from lcrl.rewards.models import win_rate_reward as win_rate_reward
from lcrl.rewards.modes import adactrl as adactrl
from lcrl.rewards.modes import adactrl_reward as adactrl_reward
from lcrl.rewards.modes import adapt_think as adapt_think
from lcrl.rewards.modes import adapt_think_reward as adapt_think_reward
from lcrl.rewards.modes import calibration_score as calibration_score
from lcrl.rewards.modes import easy_length_score as easy_length_score
from lcrl.rewards.modes import mode_accuracy as mode_accuracy
from lcrl.rewards.modes import mode_is_preferred as mode_is_preferred
from lcrl.rewards.modes import preferred_mode as preferred_mode
from lcrl.rewards.modes import preferred_mode_reward as preferred_mode_reward
from lcrl.rewards.modes import thinkless as thinkless
from lcrl.rewards.modes import thinkless_reward as thinkless_reward
from lcrl.rewards.parts import grlc as grlc
from lcrl.rewards.parts import grlc_reward as grlc_reward
from lcrl.rewards.parts import relative_shortness as relative_shortness
from lcrl.rewards.reference import alp as alp
from lcrl.rewards.reference import alp_reward as alp_reward
from lcrl.rewards.reference import conciser as conciser
from lcrl.rewards.reference import conciser_reward as conciser_reward
from lcrl.rewards.reference import gr3 as gr3
from lcrl.rewards.reference import gr3_calibrated as gr3_calibrated
from lcrl.rewards.reference import gr3_reward as gr3_reward
from lcrl.rewards.reference import lcr1 as lcr1
from lcrl.rewards.reference import lcr1_reward as lcr1_reward
from lcrl.rewards.reference import o1_pruner as o1_pruner
from lcrl.rewards.reference import o1_pruner_reward as o1_pruner_reward
from lcrl.rewards.reference import sampled_optimal_length as sampled_optimal_length
from lcrl.rewards.reference import shorter_better as shorter_better
from lcrl.rewards.reference import shorter_better_reward as shorter_better_reward
from lcrl.rewards.reference import solve_rate as solve_rate
from lcrl.rewards.references import Reference as Reference
from lcrl.rewards.references import first_accuracy_reference as first_accuracy_reference
from lcrl.rewards.references import first_mean_reference as first_mean_reference
from lcrl.rewards.references import fixed_reference as fixed_reference
from lcrl.rewards.references import group_mean_reference as group_mean_reference
from lcrl.rewards.references import right_percentile_reference as right_percentile_reference
from lcrl.rewards.references import running_mean_reference as running_mean_reference
from lcrl.rewards.references import signal_reference as signal_reference
from lcrl.rewards.relative import grpo_lead as grpo_lead
from lcrl.rewards.relative import grpo_lead_reward as grpo_lead_reward
from lcrl.rewards.relative import linear_penalty as linear_penalty
from lcrl.rewards.relative import linear_penalty_reward as linear_penalty_reward
from lcrl.rewards.relative import smart_thinker as smart_thinker
from lcrl.rewards.relative import smart_thinker_length as smart_thinker_length
from lcrl.rewards.relative import smart_thinker_reward as smart_thinker_reward
from lcrl.rewards.repetition import distinct_ngrams_reward as distinct_ngrams_reward
from lcrl.rewards.repetition import repeated_starts as repeated_starts
from lcrl.rewards.repetition import repeated_tokens as repeated_tokens
from lcrl.rewards.repetition import repetition_penalty as repetition_penalty
from lcrl.rewards.repetition import repetition_reward as repetition_reward
from lcrl.rewards.serial import serial_decay as serial_decay
from lcrl.rewards.serial import serial_decay_reward as serial_decay_reward
from lcrl.rewards.signals import answer_truncation as answer_truncation
from lcrl.rewards.signals import conciseness as conciseness
from lcrl.rewards.signals import conciseness_reward as conciseness_reward
from lcrl.rewards.signals import difficulty_factor as difficulty_factor
from lcrl.rewards.signals import entropy_gap as entropy_gap
from lcrl.rewards.signals import level_penalty as level_penalty
from lcrl.rewards.signals import level_penalty_reward as level_penalty_reward
from lcrl.rewards.signals import pear as pear
from lcrl.rewards.signals import pear_reward as pear_reward
from lcrl.rewards.signals import phase_entropy as phase_entropy
from lcrl.rewards.steered import a_dlp as a_dlp
from lcrl.rewards.steered import aalc as aalc
from lcrl.rewards.steered import aalc_reward as aalc_reward
from lcrl.rewards.steered import accuracy_price as accuracy_price
from lcrl.rewards.steered import right_length_quantile as right_length_quantile
from lcrl.rewards.steered import toggle as toggle
from lcrl.rewards.steered import toggle_reward as toggle_reward
from lcrl.rewards.suite import band_factor as band_factor
from lcrl.rewards.suite import length_suite as length_suite
from lcrl.rewards.suite import length_suite_reward as length_suite_reward
from lcrl.rewards.suite import long_outliers as long_outliers
from lcrl.rewards.suite import profiled_limit as profiled_limit
from lcrl.rewards.suite import profiled_penalty as profiled_penalty
from lcrl.rewards.suite import profiled_penalty_reward as profiled_penalty_reward
from lcrl.rewards.target import exact_length as exact_length
from lcrl.rewards.target import exact_length_reward as exact_length_reward
from lcrl.rewards.target import max_length as max_length
from lcrl.rewards.target import max_length_reward as max_length_reward
from lcrl.rewards.target import step_bonus as step_bonus
from lcrl.rewards.target import step_bonus_reward as step_bonus_reward
from lcrl.rewards.target import truncated_reward as truncated_reward
from lcrl.rewards.target import truncation as truncation

__all__ = [
  "Multipliers",
  "Reference",
  "Term",
  "a_dlp",
  "aalc",
  "aalc_reward",
  "accuracy_level",
  "accuracy_price",
  "acoer",
  "acoer_reward",
  "acoer_score",
  "adactrl",
  "adactrl_reward",
  "adapt_think",
  "adapt_think_reward",
  "alp",
  "alp_reward",
  "answer_truncation",
  "band",
  "band_factor",
  "band_score",
  "bell_length",
  "bell_length_reward",
  "calibration_score",
  "component_mix",
  "conciseness",
  "conciseness_reward",
  "conciser",
  "conciser_reward",
  "correctness",
  "cosine_history",
  "cosine_history_score",
  "cosine_length",
  "cosine_length_reward",
  "covering_length",
  "cumulative_regret",
  "curriculum",
  "curriculum_reward",
  "density_ratio",
  "density_ratio_reward",
  "difficulty_factor",
  "distinct_ngrams_reward",
  "dual_price",
  "easiest_groups",
  "easy_length_score",
  "effort",
  "entropy_gap",
  "exact_length",
  "exact_length_reward",
  "expected_right",
  "first_accuracy_reference",
  "first_mean_reference",
  "fixed_reference",
  "format_length",
  "format_length_reward",
  "gr3",
  "gr3_calibrated",
  "gr3_reward",
  "grlc",
  "grlc_reward",
  "group_mean_reference",
  "grpo_lambda",
  "grpo_lambda_reward",
  "grpo_lead",
  "grpo_lead_reward",
  "hapo",
  "hapo_mean",
  "hbpo",
  "hbpo_peak",
  "hbpo_reward",
  "kimi",
  "kimi_reward",
  "kl_penalty",
  "kl_penalty_reward",
  "lagrangian",
  "laser_d",
  "lcr1",
  "lcr1_reward",
  "leak_penalty",
  "leak_penalty_reward",
  "learned",
  "learned_reward",
  "leash",
  "leash_reward",
  "length_coverage",
  "length_dual",
  "length_gate",
  "length_gate_reward",
  "length_multiplier",
  "length_penalty",
  "length_penalty_reward",
  "length_range",
  "length_range_reward",
  "length_ratio",
  "length_ratio_reward",
  "length_suite",
  "length_suite_reward",
  "length_thresholds",
  "level_penalty",
  "level_penalty_reward",
  "level_price",
  "level_price_reward",
  "level_shortness",
  "level_shortness_reward",
  "linear_history",
  "linear_history_score",
  "linear_penalty",
  "linear_penalty_reward",
  "long_outliers",
  "max_length",
  "max_length_reward",
  "mean_right_length",
  "mode_accuracy",
  "mode_is_preferred",
  "mrt",
  "multiplicative_reward",
  "o1_pruner",
  "o1_pruner_reward",
  "pear",
  "pear_reward",
  "phase_entropy",
  "preferred",
  "preferred_mode",
  "preferred_mode_reward",
  "priced_reward",
  "profiled_limit",
  "profiled_penalty",
  "profiled_penalty_reward",
  "progress",
  "progress_reward",
  "regret_area",
  "relative_shortness",
  "repeated_starts",
  "repeated_tokens",
  "repetition_penalty",
  "repetition_reward",
  "right_length_quantile",
  "right_percentile_reference",
  "right_range",
  "right_range_reward",
  "rule_fraction",
  "rule_fraction_reward",
  "running_mean_reference",
  "sampled_optimal_length",
  "serial_decay",
  "serial_decay_reward",
  "short_rl",
  "short_rl_reward",
  "shorter_better",
  "shorter_better_reward",
  "shortest_right_length",
  "sigmoid_length",
  "sigmoid_length_reward",
  "signal_reference",
  "smart_thinker",
  "smart_thinker_length",
  "smart_thinker_reward",
  "soft_overlong",
  "soft_overlong_reward",
  "solve_rate",
  "step_bonus",
  "step_bonus_reward",
  "target_band",
  "target_band_reward",
  "thinkless",
  "thinkless_reward",
  "tiered_limit",
  "tiered_truncation",
  "toggle",
  "toggle_reward",
  "triangular",
  "triangular_score",
  "truncated_reward",
  "truncation",
  "turning_score",
  "update_multipliers",
  "verdict_reward",
  "win_rate_reward",
  "word_range",
]

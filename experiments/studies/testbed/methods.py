"""The methods: each a choice of stages by name, and the values of its main coefficient.

`tables` has the stages. Each takes one number: the swept coefficient, or a constant given here.
Lengths are those of the testbed: a right answer needs 11 to 31 tokens and starts at about 45.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

LEVELS = 5  # digits that may stand before a prompt


class Method(NamedTuple):
  name: str
  source: str
  coefficient: str  # what the swept value is
  values: tuple[float, ...]
  slots: Mapping[str, Any]  # slot -> stage of the coefficient, or (stage, its constant)
  levels: int = 1  # shown before the prompts when it is judged
  then: Mapping[str, Any] | None = None  # slots that change after that share of the steps
  note: str = ""
  starts: tuple[str, ...] = ("weak", "good")
  longer: int = 1  # times the steps of the study


DEFAULTS: dict[str, Any] = {
  "budget": "open",
  "revise": "none",
  "reward": "correctness",
  "filter": "keep_all",
  "advantage": "group_normalized",
  "loss": ("clip_higher", 0.28),
  "weights": "token_mean",
}
RATES = ("learning rate, times the others'", (0.5, 1.0, 2.0))
TARGETS = (20.0, 28.0, 36.0)


def _method(name, source, coefficient, values, levels=1, then=None, note="", **slots) -> Method:
  return Method(name, source, coefficient, values, {**DEFAULTS, **slots}, levels, then, note)


CORE = (
  _method("grpo", "2402.03300", *RATES, loss="clipped", weights="sequence_mean"),
  _method("naive", "r - alpha * length", "alpha", (0.003, 0.01, 0.03, 0.1),
          reward="length_penalty"),
  _method(
    "laser", "2505.15612", "target", TARGETS, budget="target", reward=("step_bonus", 0.5)
  ),
  _method("hard_cap", "one limit of ThinkPrune", "cap", TARGETS, budget="cap"),
  _method("token_mean", "GRPO with token_mean", *RATES, loss="clipped"),
  _method(
    "fixed_length", "GRPO with fixed_length", *RATES, loss="clipped", weights="fixed_length"
  ),
  _method("dr_grpo", "2503.20783", *RATES, advantage="group_centered", weights="fixed_length"),
  _method(
    "curriculum", "2508.08940", "last target", TARGETS, budget="falling", reward="curriculum",
    note="the prompt does not show the budget",
  ),
  _method(
    "fixed_target", "curriculum's reward, no schedule", "target", TARGETS,
    budget="target", reward="curriculum",
  ),
  _method("efficient_reasoning", "2502.04463", "alpha", (0.1, 0.2, 0.4),
          reward="sigmoid_length", advantage="leave_one_out"),
  _method("drpo", "2510.04474", "temperature", (0.03, 0.1, 0.3), loss="drpo"),
  _method("gr3", "2603.10535", "alpha", (0.1, 0.33, 1.0), reward="gr3"),
  _method("dler", "2510.15110", "cap", TARGETS, budget="cap", reward="truncation",
          filter="mixed_correctness", advantage="reinforce_baseline"),
)  # fmt: skip
ADAPTIVE = (
  _method("laser_d", "2505.15612", "alpha", (0.25, 0.5, 1.0), reward="laser_d"),
  _method("laser_de", "2505.15612", "alpha", (0.25, 0.5, 1.0), reward="laser_de"),
  _method("hapo", "2505.11225", "weight", (0.3, 0.6, 1.0), reward="hapo"),
  _method("hapo_mean", "2505.11225, mean history", "weight", (0.3, 0.6, 1.0), reward="hapo_mean"),
  _method("grpo_lambda", "2505.18086", "alpha", (0.1, 0.2, 0.4), reward="grpo_lambda"),
  _method("kimi", "2501.12599", "alpha", (0.2, 0.5, 1.0), reward="kimi"),
  _method("alp", "2506.05256", "beta", (0.003, 0.01, 0.03), reward="alp"),
  _method("shorter_better", "2504.21370", "beta", (0.005, 0.02, 0.05), reward="shorter_better"),
  _method("lcr1", "2506.14755", "alpha", (0.3, 1.0, 2.0), reward="lcr1",
          revise="waste cut", advantage="thinking_compression"),
  _method("dot", "2601.03969", "alpha", (1.0, 1.5, 2.0), revise="outliers cut",
          filter="nonconstant_reward", loss="kl_cov", weights="sequence_mean",
          note="alpha 3 cannot fire in groups of 8; no predictive oversampling"),
  _method("qglas", "QGLAS 2026", "beta_max", (0.3, 0.6, 1.2), advantage="qglas"),
  _method("grlc", "Nemotron 3 Nano", "weights", (0.25, 0.5, 1.0), reward="grlc"),
  _method("acoer", "2606.22716", "alpha", (0.25, 0.5, 1.0), reward="acoer"),
  _method("gfpo_shortest", "2508.09726", "kept of 8", (2.0, 4.0, 6.0),
          filter="shortest", advantage="population"),
  _method("gfpo_efficiency", "2508.09726", "kept of 8", (2.0, 4.0, 6.0),
          filter="most_efficient", advantage="population"),
  _method("gfpo_adaptive", "2508.09726", "kept of the easiest", (2.0, 3.0, 4.0),
          filter="adaptive_shortest", advantage="population"),
)  # fmt: skip
LIMITS = (
  _method("da_dler", "2510.15110", "easy limit", (16.0, 24.0, 32.0), budget=("cap", 48.0),
          reward="tiered_truncation", filter="mixed_correctness", advantage="reinforce_baseline"),
  _method("thinkprune", "2504.01296", "last limit", TARGETS, budget="stairs", reward="truncation",
          note="the prompt does not show the limit"),
  _method("siri", "2509.25176", "lowest limit", TARGETS, budget="cosine",
          reward="answer_truncation"),
  _method("l1_exact", "2503.04697", "alpha", (0.005, 0.01, 0.02), LEVELS, budget="asked",
          reward="exact_length", weights="sequence_mean"),
  _method("l1_max", "2503.04697", "alpha", (0.01, 0.02, 0.05), LEVELS, budget="asked",
          reward="max_length", weights="sequence_mean"),
  _method("hbpo", "2507.15844", "beta", (1.0, 2.0, 4.0), 4, budget="subgroups", reward="hbpo",
          advantage="budget_subgroup"),
  _method("tldr", "2505.07961, formula ours", "penalty of the short level", (0.2, 0.5, 1.0), 3,
          budget="three levels", reward="level_penalty"),
  _method("length_dual", "dual ascent, ours", "target", TARGETS, reward="length_dual"),
  _method("lagrangian", "2310.04373", "target", TARGETS, reward="lagrangian",
          advantage="group_centered", note="the verdict is the main component, and there is no KL"),
  _method("longwriter_zero", "2506.18841, range not judged", "high", TARGETS,
          advantage="in_range"),
  _method("cosine_length", "2502.03373", "price of a wrong answer of no tokens", (1.0, 3.0, 10.0),
          reward="cosine_length", advantage="multi_discount"),
  _method("format_length", "2505.19439", "max_length", (40.0, 60.0, 80.0), reward="format_length",
          note="never reads the verdict"),
  _method("soft_overlong", "DAPO's term alone", "factor", (0.5, 1.0, 2.0), reward="soft_overlong"),
)  # fmt: skip
OTHERS = (
  _method("rloo", "2402.14740", *RATES, advantage="leave_one_out"),
  _method("reinforce_pp", "2501.03262", *RATES, advantage="reinforce"),
  _method("reinforce_pp_baseline", "2501.03262", *RATES, advantage="reinforce_baseline"),
  _method("dapo", "2503.14476", "clip_high", (0.2, 0.28, 0.4), reward=("soft_overlong", 1.0),
          filter="untruncated", advantage="over_valid", loss="clip_higher",
          note="dropped groups are not refilled"),
  _method("gspo", "2507.18071", "clip_high", (4e-4, 4e-3, 4e-2), loss="sequence_clipped",
          weights="sequence_mean"),
  _method("luspo", "2602.05261", "clip_high", (2.5e-3, 1e-2, 5e-2), loss="sequence_clipped",
          weights="sequence_sum"),
  _method("cispo", "2506.13585", "upper", (1.5, 2.0, 5.0), loss="cispo"),
  _method("tis", "truncated importance sampling", "high", (1.0, 2.0, 4.0), loss="corrected",
          note="sampler and scorer are one model here: nothing to correct but rounding"),
  _method("disco", "2505.12366", *RATES, loss="disco"),
  _method("canon_length", "2509.23962", "alpha", (0.5, 0.8, 0.95), advantage="canon_length",
          weights="fixed_length"),
  _method("canon_entropy", "2509.23962", "alpha", (0.5, 0.8, 0.95), advantage="canon_entropy",
          weights="fixed_length"),
  _method("conciser", "2505.21178", "share of stage 1", (0.25, 0.5, 0.75),
          filter="mixed_correctness", then={"reward": "conciser", "filter": "keep_all"}),
  _method("pear", "2510.08026", "alpha", (0.5, 1.0, 2.0), reward="pear"),
  _method("crf", "2511.09158, no reward model", "alpha", (0.1, 0.3, 1.0), reward="conciseness",
          note="share of tokens that repeat nothing stands in for the conciseness model"),
  _method("autorule", "2506.15651, two fixed rules", "weight", (0.2, 0.5, 1.0),
          reward="rule_fraction", note="brief, and no step twice: stand-ins for a model's rules"),
  _method("o1_pruner", "2501.12570", "accuracy weight", (1.0, 2.0, 5.0), reward="o1_pruner",
          advantage="raw", loss=("sequence_clipped", 0.2), weights="sequence_mean",
          note="fresh samples every step, where the paper trains once on drawn ones"),
)  # fmt: skip
RECENT = (
  _method("gdpo", "2601.05242", "weight of the length", (0.25, 0.5, 1.0),
          budget=("target", 28.0), advantage="gdpo", note="equal sums of rewards are not replaced"),
  _method("decs", "2509.25827", "r+ - r0", (0.1, 0.3, 1.0), filter="easy_share", advantage="decs",
          note="what was needed is read off the steps; easy groups are dropped, not replaced"),
  _method("lapo", "2507.15758, first stage", "weight", (0.35, 0.7, 1.4), reward="right_range",
          note="a prompt here states no number of tokens, so that there is no second stage"),
  _method("aalc", "2506.20160", "alpha", (0.03, 0.1, 0.3), reward="aalc",
          note="the accuracy on the monitor set every 12 steps"),
  _method("think_dial", "2508.18773, second phase", "weight of low effort", (0.25, 0.5, 1.0), 3,
          budget="three levels", reward="dial", note="no leak: nothing is thought in an answer"),
  _method("smart_thinker", "2603.08000", *RATES, reward="smart_thinker"),
  _method("linear_penalty", "prime-rl", "weight", (0.25, 0.5, 1.0), reward="linear_penalty",
          advantage="group_centered"),
  _method("linear_penalty_gated", "prime-rl, gated", "weight", (0.25, 0.5, 1.0),
          reward="linear_gated", advantage="group_centered"),
  _method("grpo_lead", "2504.09696", "alpha", (0.05, 0.2, 0.5), reward="grpo_lead",
          filter="mixed_correctness", advantage="difficulty_weighted"),
  _method("a_dlp", "2505.18298", "reference accuracy", (0.5, 0.7, 0.9), reward="a_dlp"),
  _method("toggle", "2602.02276", "threshold", (0.25, 0.5, 0.75), reward="toggle",
          note="median length, phases of an eighth of the run: the report gives no numbers"),
  _method("short_rl", "2505.12284", "slack", (2.0, 5.0, 10.0), reward="short_rl"),
  _method("leash", "2512.21540", "target", TARGETS, reward="leash", filter="mixed_correctness",
          note="dropped groups are not refilled"),
  _method("on_policy_sft", "2602.13407", "limit", TARGETS, budget="cap", reward="truncation",
          filter="positive_reward", advantage="raw", loss="likelihood"),
  _method("nemo_suite", "NeMo-RL", "weight", (0.1, 0.3, 1.0), reward="suite_relative"),
  _method("nemo_suite_extremes", "NeMo-RL", "bonus and penalty", (0.1, 0.3, 0.5),
          reward="suite_extremes"),
  _method("nemo_suite_outliers", "NeMo-RL", "penalty", (0.1, 0.3, 1.0), reward="suite_outliers"),
  _method("nemo_suite_profile", "NeMo-RL", "penalty", (0.1, 0.3, 1.0), reward="suite_profile",
          note="a profile is the prompt's first group with two right answers"),
  _method("nemo_suite_band", "NeMo-RL", "share left at the cap", (0.25, 0.5, 0.75),
          reward="suite_band", note="the whole reward up to 24 tokens"),
  _method("nemo_suite_gate", "NeMo-RL", "gate", TARGETS, reward="suite_gate",
          note="weight 0.3; of the whole response, not of its parts"),
)  # fmt: skip
PROBING = (
  _method(
    "mrt",
    "2503.07572, one step a response",
    "alpha",
    (0.2, 0.5, 1.0),
    reward="mrt",
    note="values of prefixes are read off the policy: the answer is one token",
  ),
  _method("anytime_reasoner", "2505.13438, budgets of 20 to 80", *RATES,
          advantage="budget_relative", note="answers at budgets are read off the policy"),
)  # fmt: skip
# The values of prefixes cost six passes more, so these are a program of their own.


def _dial(name, source, coefficient, values, note="", **slots) -> Method:
  """A policy with a dial: all levels in one run, of as many tokens as four single runs."""
  method = _method(name, source, coefficient, values, LEVELS, budget="efforts", **slots)
  return method._replace(starts=("good", "told"), longer=4, note=note)


DIALS = (
  _dial("dial_gate", "fixed reference, length_gate", "tokens of full effort", (36.0, 45.0, 54.0),
        reward="effort_gate"),
  _dial("dial_mean", "2510.27042 (e1)", "full effort, times the group's mean", (0.8, 1.0, 1.2),
        reward="effort_mean"),
  _dial("dial_band", "fixed reference, target_band", "share left at 1.5 targets", (0.0, 0.25, 0.5),
        reward="effort_band"),
  _dial("dial_ratio", "Nemotron effort levels", "weight", (0.3, 1.0, 3.0), reward="effort_ratio"),
  _dial("dial_price", "Inkling", "price of a token at the least effort", (0.003, 0.01, 0.03),
        reward="effort_price", advantage="group_centered",
        note="efforts pay 1, 1/2, 1/4, 1/8 of the price, and none"),
  _dial("dial_multiplier", "a price for each effort, dual ascent", "step size", (0.03, 0.1, 0.3),
        reward="effort_multiplier"),
  _dial("dial_exact", "2503.04697 (L1), four times the steps", "alpha", (0.005, 0.01, 0.02),
        reward="exact_length", weights="sequence_mean"),
)  # fmt: skip
METHODS = {m.name: m for m in (*CORE, *ADAPTIVE, *LIMITS, *OTHERS, *RECENT, *PROBING, *DIALS)}
NOT_APPLICABLE = {
  "AdaCtrl, Adaptive Deep Reasoning, Thinkless": "a response would have to name its mode; none "
  "does",
  "AdaptThink": "it forces the openings of responses, which the study's sampler does not",
  "S-GRPO": "it samples answers at cuts of one response; revisions of the study sample nothing",
  "GTO": "it trains draft models for speculative decoding",
  "Dataset Decomposition": "it is about pre-training data",
}

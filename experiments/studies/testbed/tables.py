"""The stages that methods of the testbed choose from: slot -> name -> function of one number.

The number is a swept coefficient or a constant, and may be traced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp

from experiments.studies.testbed import stages
from lcrl import advantages, budgets, filters, rewards
from lcrl.losses import policy as losses
from lcrl.losses import weights
from lcrl.tasks.sums import Sums

SLOTS = ("budget", "revise", "reward", "filter", "advantage", "loss", "weights")
L1_TARGETS = (15, 25, 35, 45, 60)
HBPO_TARGETS = (15, 25, 40, 60)
EFFORTS = (0.4, 0.5, 0.6, 0.75, 1.0)
FULL = 45  # tokens of full effort
BUDGETS = (20, 40, 60, 80)  # of thinking, for AnytimeReasoner
EIGHT = Sums(fewest=2, most=8)
Table = dict[str, Callable[[Any], Any]]  # name -> function of one number


@dataclasses.dataclass(frozen=True)
class Setup:
  """The sizes of a run that stages need, all static."""

  sums: Sums = EIGHT
  cap: int = 80  # tokens of a response
  steps: int = 96
  rows: int = 384  # of the training set


def stage_tables(s: Setup) -> dict[str, Table]:
  """slot -> name -> function of one number."""
  tables = (_budgets, _revisions, _rewards, _filters, _advantages, _losses, _weights)
  return {slot: table(s) for slot, table in zip(SLOTS, tables, strict=True)}


def _budgets(s: Setup) -> Table:
  schedule = lambda make, cap=None: (
    lambda v: budgets.scheduled(schedule=lambda step: make(v, step), cap=cap)
  )
  constant = lambda v, step: v + 0.0 * step
  falling = lambda v, step: budgets.exponential_decay_length(
    step, start=60.0, decay=(v / 60.0) ** 0.25, interval=-(-s.steps // 5)
  )
  stairs = lambda v, step: v * jnp.array([1.8, 1.35, 1.0])[jnp.minimum(3 * step // s.steps, 2)]
  cosine = lambda v, step: budgets.cosine_cycle_length(
    step, low=v, high=s.cap, period=max(1, s.steps // 3)
  )
  return {
    "open": lambda v: budgets.fixed(target=s.cap),
    "target": schedule(constant, s.cap),
    "cap": schedule(constant),
    "falling": schedule(falling, s.cap),
    "stairs": schedule(stairs),
    "cosine": schedule(cosine),
    "efforts": lambda v: budgets.effort(efforts=EFFORTS, tokens=FULL, cap=s.cap),
    "asked": lambda v: budgets.uniform_level(targets=L1_TARGETS, cap=s.cap),
    "subgroups": lambda v: budgets.subgroups(targets=HBPO_TARGETS, cap=s.cap),
    "three levels": lambda v: budgets.uniform_level(targets=(s.cap,) * 3),
  }


def _revisions(s: Setup) -> Table:
  return {
    "none": lambda v: stages.as_sampled,
    "outliers cut": lambda v: stages.outliers_cut(alpha=v, sums=s.sums),
    "waste cut": lambda v: stages.waste_cut(sums=s.sums),
  }


def _rewards(s: Setup) -> Table:
  laser_d = lambda explore: (
    lambda v: stages.magnified(
      rewards.laser_d(
        lower=8 * stages.UNIT,
        upper=s.cap * stages.UNIT,
        interval=2 * stages.UNIT,
        initial=s.cap * stages.UNIT,
        alpha=v,
        explore=explore,
      )
    )
  )
  fixed = rewards.fixed_reference(tokens=FULL)

  def effort(term, reference=fixed, scale=1.0):
    return rewards.effort(efforts=EFFORTS, reference=stages.scaled(reference, scale), term=term)

  return {
    "correctness": lambda v: rewards.correctness(),
    "length_penalty": lambda v: rewards.length_penalty(alpha=v),
    "soft_overlong": lambda v: rewards.soft_overlong(max_length=s.cap, buffer=s.cap // 2, factor=v),
    "step_bonus": lambda v: rewards.step_bonus(alpha=v),
    "laser_d": laser_d(0.0),
    "laser_de": laser_d(0.5),
    "sigmoid_length": lambda v: rewards.sigmoid_length(alpha=v),
    "grpo_lambda": lambda v: rewards.grpo_lambda(alpha=v),
    "kimi": lambda v: rewards.kimi(alpha=v),
    "alp": lambda v: rewards.alp(beta=v),
    "gr3": lambda v: rewards.gr3(alpha=v),
    "shorter_better": lambda v: rewards.shorter_better(beta=v),
    "lcr1": lambda v: rewards.lcr1(alpha=v),
    "conciser": lambda v: rewards.conciser(max_length=s.cap),
    "o1_pruner": lambda v: stages.o1_pruner(accuracy_weight=v),
    "hapo": lambda v: rewards.hapo(rows=s.rows, weight=v),
    "hapo_mean": lambda v: rewards.hapo_mean(rows=s.rows, weight=v),
    "truncation": lambda v: rewards.truncation(),
    "tiered_truncation": lambda v: rewards.tiered_truncation(limits=(48, v)),
    "answer_truncation": lambda v: rewards.answer_truncation(),
    "curriculum": lambda v: rewards.curriculum(),
    "level_penalty": lambda v: rewards.level_penalty(
      penalty_by_level=(v, v / 2, 0.0), max_length=s.cap
    ),
    "conciseness": lambda v: rewards.conciseness(alpha=v, anneal_steps=s.steps),
    "pear": lambda v: rewards.pear(alpha=v),
    "format_length": lambda v: rewards.format_length(max_length=v),
    "cosine_length": lambda v: rewards.cosine_length(max_length=s.cap, margin=2, wrong=(-v, 0.0)),
    "length_dual": lambda v: rewards.length_dual(target=v),
    "lagrangian": lambda v: rewards.lagrangian(
      main=rewards.correctness(),
      components=[rewards.length_penalty(alpha=1 / v, base=rewards.correctness(right=0.0))],
      targets=[-1.0],
    ),
    "rule_fraction": lambda v: rewards.rule_fraction(rules=("brief", "unrepeated"), weight=v),
    "exact_length": lambda v: rewards.exact_length(alpha=v),
    "effort_gate": lambda v: effort(rewards.length_gate(), scale=v / FULL),
    "effort_mean": lambda v: effort(rewards.length_gate(), rewards.group_mean_reference(), scale=v),
    "effort_band": lambda v: effort(rewards.target_band(full=1.5, least=v)),
    "effort_ratio": lambda v: effort(rewards.length_ratio(weight=v)),
    "effort_price": lambda v: effort(rewards.level_price(prices=[v, v / 2, v / 4, v / 8, 0.0])),
    "effort_multiplier": lambda v: effort(
      rewards.length_multiplier(levels=len(EFFORTS), step_size=v)
    ),
    "max_length": lambda v: rewards.max_length(alpha=v),
    "mrt": lambda v: rewards.mrt(alpha=v),
    "grlc": lambda v: rewards.grlc(think_weight=v, answer_weight=v),
    "acoer": lambda v: rewards.acoer(alpha=v, shortest=10.0, interval=max(1, s.steps // 8)),
    "smart_thinker": lambda v: rewards.smart_thinker(),
    "linear_penalty": lambda v: rewards.linear_penalty(weight=v),
    "linear_gated": lambda v: rewards.linear_penalty(weight=v, scale=s.cap, gated=True),
    "grpo_lead": lambda v: rewards.grpo_lead(alpha=v, base=rewards.correctness(wrong=-1.0)),
    "a_dlp": lambda v: rewards.a_dlp(reference=v, start=0.003, step_size=0.003),
    "toggle": lambda v: rewards.toggle(
      rows=s.rows, threshold=v, quantile=0.5, period=max(1, s.steps // 8)
    ),
    "right_range": lambda v: rewards.right_range(weight=v, width=10.0),
    "aalc": lambda v: rewards.aalc(max_length=s.cap, alpha=v, beta=16.0),
    "dial": lambda v: rewards.effort(
      efforts=(1.0, 0.5, 0.25),
      reference=rewards.first_mean_reference(rows=s.rows),
      term=rewards.level_shortness(weights=(0.0, v / 2, v)),
    ),
    "short_rl": lambda v: rewards.short_rl(slack=v),
    "leash": lambda v: rewards.leash(target=v, base=rewards.correctness(wrong=-1.0)),
    "suite_relative": lambda v: rewards.length_suite(relative=v),
    "suite_extremes": lambda v: rewards.length_suite(shortest_bonus=v, longest_penalty=v),
    "suite_outliers": lambda v: rewards.length_suite(outlier_penalty=v),
    "suite_profile": lambda v: rewards.profiled_penalty(rows=s.rows, penalty=v),
    "suite_band": lambda v: rewards.length_suite(band=(0.3 * s.cap, s.cap, v)),
    "suite_gate": lambda v: rewards.length_suite(relative=0.3, gate=v),
    "hbpo": lambda v: rewards.hbpo(max_length=s.cap, beta=v, alpha=1 / s.cap),
  }


def _filters(s: Setup) -> Table:
  return {
    "keep_all": lambda v: filters.keep_all(),
    "mixed_correctness": lambda v: filters.mixed_correctness(),
    "nonconstant_reward": lambda v: filters.nonconstant_reward(),
    "positive_reward": lambda v: filters.positive_reward(),
    "untruncated": lambda v: filters.untruncated(base=filters.mixed_correctness()),
    "shortest": lambda v: filters.shortest(count=v),
    "most_efficient": lambda v: filters.most_efficient(count=v),
    "easy_share": lambda v: filters.easy_share(),
    "adaptive_shortest": lambda v: filters.adaptive_shortest(
      counts=(6, 6, 4, v), window=s.rows, warmup=16
    ),
  }


def _advantages(s: Setup) -> Table:
  return {
    "group_normalized": lambda v: advantages.group_normalized(),
    "over_valid": lambda v: advantages.group_normalized(over_valid=True),
    "group_centered": lambda v: advantages.group_centered(),
    "leave_one_out": lambda v: advantages.leave_one_out(),
    "reinforce": lambda v: advantages.reinforce(),
    "reinforce_baseline": lambda v: advantages.reinforce_baseline(),
    "population": lambda v: advantages.group_normalized(ddof=0),
    "canon_length": lambda v: advantages.canon_length(mu=1.0, alpha=v),
    "canon_entropy": lambda v: advantages.canon_entropy(mu=1.0, alpha=v),
    "qglas": lambda v: advantages.qglas(beta_min=v / 2, beta_max=v),
    "budget_subgroup": lambda v: advantages.budget_subgroup(max_length=s.cap, beta=v),
    "raw": lambda v: advantages.raw(),
    "thinking_compression": lambda v: advantages.thinking_compression(),
    "multi_discount": lambda v: advantages.multi_discount(
      ngram=6, gamma=0.9, base=advantages.group_normalized()
    ),
    "gdpo": lambda v: advantages.gdpo(components=("correct", "within_target"), weights=(1.0, v)),
    "decs": lambda v: advantages.decs(max_length=s.cap, high=1.0 + v, low=1.0, slope=v),
    "difficulty_weighted": lambda v: advantages.difficulty_weighted(),
    "budget_relative": lambda v: advantages.budget_relative(budgets=BUDGETS, weights=BUDGETS),
    "in_range": lambda v: stages.in_range(low=11, high=v, max_length=s.cap),
  }


def _losses(s: Setup) -> Table:
  return {
    "clipped": lambda v: losses.clipped_surrogate(),
    "clip_higher": lambda v: losses.clipped_surrogate(clip_low=0.2, clip_high=v),
    "sequence_clipped": lambda v: losses.sequence_clipped_surrogate(clip_low=0.75 * v, clip_high=v),
    "cispo": lambda v: losses.cispo(upper=v),
    "likelihood": lambda v: losses.cispo(lower=1.0, upper=1.0),
    "corrected": lambda v: losses.clipped_surrogate(correction=losses.truncated(high=v)),
    "kl_cov": lambda v: losses.kl_cov(),
    "drpo": lambda v: losses.drpo(max_length=s.cap, temperature=v),
    "disco": lambda v: losses.drpo(max_length=s.cap, temperature=None),
  }


def _weights(s: Setup) -> Table:
  return {
    "token_mean": lambda v: weights.token_mean,
    "sequence_mean": lambda v: weights.sequence_mean,
    "sequence_sum": lambda v: weights.sequence_sum,
    "fixed_length": lambda v: partial(weights.fixed_length, length=s.cap),
  }

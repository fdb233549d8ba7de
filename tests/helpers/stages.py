"""A row for each stage of each slot, and input that all of them read."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from lcrl import advantages, budgets, filters, losses, rewards
from lcrl.losses import policy
from lcrl.types import Batch
from tests.rollouts import random_rollouts

SLOTS = {
  "budget": budgets,
  "reward": rewards,
  "filter": filters,
  "advantage": advantages,
  "loss": policy,
}
LASER = dict(fn="correctness", right=1.0, wrong=-0.5, bad_format=-1.0)
K3 = dict(fn="k3", beta=0.1)
LAGRANGIAN = dict(
  fn="lagrangian",
  main=dict(fn="kl_penalty", beta=1.0, base=dict(fn="correctness", right=0.0)),
  components=[dict(fn="correctness"), dict(fn="length_penalty", alpha=0.1)],
  targets=[0.5, -1.0],
)
FIXED = dict(fn="fixed_reference", tokens=6)
ACCURACY = dict(fn="first_accuracy_reference", rows=4)
FIRST = dict(fn="first_mean_reference", rows=4)


def effort_of(reference, term):
  return dict(fn="effort", efforts=(0.5, 1.0), reference=reference, term=term)


RESTARTS = dict(low=0.0, high=0.6, warmup=30, period=40)
# What a reward does as its own response grows longer, others unchanged: of a right answer, and of a
# wrong one, which never gains by being short unless it FALLS.
FALLS, RISES, STILL, ANY = "falls", "rises", "still", "any"
ROWS = [
  ("budget", dict(fn="fixed", target=5)),
  ("budget", dict(fn="first_only", target=5)),
  ("budget", dict(fn="uniform", low=2, high=9, cap=12)),
  ("budget", dict(fn="uniform_level", targets=(4, 8))),
  ("budget", dict(fn="subgroups", targets=(4, 8))),
  ("budget", dict(fn="scheduled", schedule=dict(fn="cosine_cycle", low=2, high=9, period=8))),
  ("budget", dict(fn="scheduled", schedule=dict(fn="stair_cosine", low=2, high=9, period=8))),
  ("budget", dict(fn="effort", efforts=(0.5, 1.0), tokens=8, cap=9)),
  ("budget", dict(fn="right_median", rows=4, fallback=9, shown_from=2)),
  ("reward", LASER, STILL, STILL),
  ("reward", dict(fn="length_penalty", alpha=0.01), FALLS, FALLS),
  (
    "reward",
    dict(fn="soft_overlong", max_length=8, buffer=4, base=dict(fn="hapo", rows=4)),
    FALLS,
    FALLS,
  ),
  ("reward", dict(fn="exact_length"), ANY, ANY),
  ("reward", dict(fn="max_length"), FALLS, STILL),
  ("reward", dict(fn="step_bonus", explore=0.5, base=LASER), FALLS, RISES),
  ("reward", dict(fn="truncation", late_scale=0.1), FALLS, STILL),
  ("reward", dict(fn="sigmoid_length"), FALLS, STILL),
  ("reward", dict(fn="kimi"), FALLS, FALLS),
  ("reward", dict(fn="grpo_lambda", share=0.5), FALLS, STILL),
  ("reward", dict(fn="laser_d", lower=2, upper=9, interval=2, initial=5, base=LASER), FALLS, STILL),
  ("reward", dict(fn="tiered_truncation", limits=(8, 4)), FALLS, STILL),
  ("reward", dict(fn="curriculum", score=dict(fn="band")), FALLS, FALLS),
  ("reward", dict(fn="hapo", rows=4), FALLS, FALLS),
  ("reward", dict(fn="hapo_mean", rows=4, score=dict(fn="linear_history")), FALLS, FALLS),
  ("reward", dict(fn="repetition_penalty", ngram=2), ANY, ANY),
  ("reward", dict(fn="level_penalty", penalty_by_level=(0.2, 0.5), max_length=8), FALLS, FALLS),
  ("reward", dict(fn="conciseness", anneal_steps=10), STILL, STILL),
  ("reward", dict(fn="learned", name="conciseness", only_correct=True), STILL, STILL),
  ("reward", dict(fn="preferred", base=dict(fn="correctness")), STILL, STILL),
  ("reward", dict(fn="density_ratio", per_token=True), ANY, ANY),
  ("reward", dict(fn="word_range", max_words=9), STILL, STILL),
  ("reward", dict(fn="pear"), ANY, STILL),
  ("reward", dict(fn="answer_truncation"), FALLS, STILL),
  ("reward", dict(fn="cosine_length", max_length=9, margin=2), FALLS, ANY),
  ("reward", dict(fn="format_length", max_length=9), ANY, ANY),
  ("reward", dict(fn="length_range", low=3, high=5, max_length=9), ANY, ANY),
  ("reward", dict(fn="shorter_better", beta=0.1), FALLS, ANY),
  ("reward", dict(fn="alp", beta=0.01), FALLS, FALLS),
  ("reward", dict(fn="lcr1"), FALLS, STILL),
  ("reward", dict(fn="conciser", max_length=9), FALLS, STILL),
  ("reward", dict(fn="gr3"), FALLS, STILL),
  ("reward", dict(fn="grlc", bonus=0.0), FALLS, FALLS),  # the bonus goes to the first of equals
  ("reward", dict(fn="hbpo", max_length=9), FALLS, STILL),
  ("reward", dict(fn="acoer", interval=1), FALLS, STILL),
  ("reward", dict(fn="adactrl"), FALLS, STILL),
  ("reward", dict(fn="preferred_mode"), STILL, STILL),
  ("reward", dict(fn="rule_fraction", rules=("has_think", "has_answer")), STILL, STILL),
  ("reward", dict(fn="length_dual", target=3, base=dict(fn="hapo", rows=4)), FALLS, FALLS),
  ("reward", dict(fn="kl_penalty", beta=0.1), ANY, ANY),
  ("reward", LAGRANGIAN, ANY, ANY),
  ("reward", dict(fn="mrt"), STILL, STILL),
  ("reward", dict(fn="o1_pruner", low=-2.0, high=4.0), FALLS, FALLS),
  ("reward", effort_of(FIXED, dict(fn="length_gate")), FALLS, STILL),
  (
    "reward",
    effort_of(dict(fn="first_mean_reference", rows=4), dict(fn="target_band")),
    FALLS,
    STILL,
  ),
  ("reward", effort_of(FIXED, dict(fn="length_ratio", weight=0.5)), FALLS, FALLS),
  ("reward", effort_of(FIXED, dict(fn="level_price", prices=(0.1, 0.2))), FALLS, FALLS),
  ("reward", effort_of(FIXED, dict(fn="length_multiplier", levels=2)), FALLS, FALLS),
  (
    "reward",
    effort_of(FIXED, dict(fn="level_shortness", weights=(0.5, 1.0)))
    | dict(base=dict(fn="leak_penalty")),
    FALLS,
    FALLS,
  ),
  ("reward", dict(fn="leak_penalty"), STILL, STILL),
  ("reward", dict(fn="right_range", width=4.0), ANY, STILL),
  ("reward", dict(fn="bell_length", sigma=3.0), ANY, STILL),
  ("reward", dict(fn="aalc", max_length=9, alpha=0.1), STILL, STILL),  # nothing was observed yet
  ("reward", dict(fn="adapt_think", reference=ACCURACY), STILL, STILL),
  ("reward", dict(fn="thinkless"), STILL, STILL),
  ("reward", dict(fn="smart_thinker"), ANY, STILL),  # the target moves with the length
  ("reward", dict(fn="linear_penalty"), FALLS, FALLS),
  ("reward", dict(fn="grpo_lead", base=dict(fn="correctness", wrong=-1.0)), FALLS, STILL),
  ("reward", dict(fn="a_dlp", reference=0.5, start=0.01), FALLS, FALLS),
  (
    "reward",
    dict(fn="toggle", rows=4, threshold=0.25, quantile=0.5, period=2),
    FALLS,
    STILL,
  ),
  (  # bonus and penalty go to the first of equals
    "reward",
    dict(fn="length_suite", relative=0.2, gate=1.0, outlier_penalty=0.1, band=(2.0, 9.0, 0.5)),
    FALLS,
    STILL,
  ),
  ("reward", dict(fn="profiled_penalty", rows=4, deviations=0.0, min_right=1), ANY, STILL),
  ("reward", dict(fn="short_rl", slack=1.0, tolerance=1.0), FALLS, STILL),
  ("reward", dict(fn="leash", target=3.0), FALLS, FALLS),
  ("reward", dict(fn="serial_decay"), STILL, STILL),
  ("filter", dict(fn="keep_all")),
  ("filter", dict(fn="mixed_correctness")),
  ("filter", dict(fn="all_right")),
  ("filter", dict(fn="positive_reward")),
  ("filter", dict(fn="nonconstant_reward")),
  ("filter", dict(fn="untruncated", base=dict(fn="mixed_correctness"))),
  ("filter", dict(fn="shortest", count=2)),
  ("filter", dict(fn="most_efficient", count=2)),
  ("filter", dict(fn="easy_share", step_size=1.0)),
  ("filter", dict(fn="adaptive_shortest", counts=(3, 2, 2, 1), window=6, warmup=2)),
  ("advantage", dict(fn="group_normalized")),
  ("advantage", dict(fn="group_centered", over_valid=True)),
  ("advantage", dict(fn="leave_one_out")),
  ("advantage", dict(fn="batch_scaled")),
  ("advantage", dict(fn="raw")),
  ("advantage", dict(fn="multi_discount", ngram=2, base=dict(fn="reinforce", gamma=0.9))),
  ("advantage", dict(fn="thinking_compression")),
  ("advantage", dict(fn="block_progress")),
  ("advantage", dict(fn="budget_relative", budgets=(2, 4), weights=(0.5, 1.0))),
  ("advantage", dict(fn="reinforce_baseline")),
  ("advantage", dict(fn="reinforce", gamma=0.9)),
  ("advantage", dict(fn="canon_length", mu=dict(fn="accuracy_mix"), alpha=0.9)),
  ("advantage", dict(fn="canon_entropy", mu=dict(fn="cosine_restarts", **RESTARTS))),
  ("advantage", dict(fn="budget_subgroup", max_length=8)),
  ("advantage", dict(fn="qglas")),
  ("advantage", dict(fn="component_average", signals=("conciseness",))),
  ("advantage", dict(fn="gdpo", components=("reward", "within_target", "conciseness"))),
  ("advantage", dict(fn="difficulty_weighted")),
  ("advantage", dict(fn="decs", max_length=9)),
  ("loss", dict(fn="clipped_surrogate", dual_clip=3.0, kl=K3, correction=dict(fn="truncated"))),
  ("loss", dict(fn="sequence_clipped_surrogate", correction=dict(fn="rejected"))),
  ("loss", dict(fn="cispo", kl=dict(fn="k2", beta=0.1), entropy_bonus=0.1)),
  ("loss", dict(fn="sapo", distill=dict(fn="reverse_kl", coefficient=0.5))),
  ("loss", dict(fn="mode_switch", threshold=0.0, base=dict(fn="clipped_surrogate"))),
  (
    "loss",
    dict(fn="forced_opening", shares=(0.5, 0.5), base=dict(fn="sequence_clipped_surrogate")),
  ),
  ("loss", dict(fn="kl_cov", share=0.2)),
  ("loss", dict(fn="drpo", max_length=9)),
]
TABLE = [row[:2] for row in ROWS]


@functools.cache
def inputs(seed):
  """Everything that any stage reads, with a ragged group and every signal."""
  r = random_rollouts(seed)
  keys = jax.random.split(jax.random.key(seed + 1), 6)
  flags = jax.random.bernoulli(keys[0], 0.5, r.correct.shape)
  noise = lambda key: jnp.where(r.mask, jax.random.normal(key, r.mask.shape), 0)
  target = jax.random.randint(keys[1], r.lengths.shape, 3, 9)
  r = dataclasses.replace(
    r,
    valid=r.valid.at[1, 2:].set(False),
    sampler_log_probs=-jnp.abs(noise(keys[2])),
    outcome=jnp.where(r.correct, 0, 1 + flags).astype(jnp.int8),
    undrawn=r.mask & (jnp.cumsum(r.mask, -1) == 1) & flags[..., None],
    budget=dataclasses.replace(r.budget, target=target, level=flags.astype(jnp.int32)),
    signals={
      "has_think": flags,
      "has_answer": ~flags,
      "conciseness": jax.random.uniform(keys[3], flags.shape),
      "strong": -jnp.abs(noise(keys[0])),
      "weak": -jnp.abs(noise(keys[1])),
      "words": r.lengths // 2 + 1,
      "words_low": target // 2 + 1,
      "words_high": target,
      "leak": flags,
      "preference": jax.random.normal(keys[3], (*flags.shape, 2)),
      "entropy": jnp.abs(noise(keys[4])),
      "think_end": r.lengths // 2 - 1,
      "tag": target % 3,
      "answer_length": r.lengths - 1,
      "think_length": jnp.maximum(r.lengths // 2, 1),
      "needed": r.lengths // 4,
      "ref_log_probs": noise(keys[2]),
      "teacher_log_probs": -jnp.abs(noise(keys[3])),
      "progress": noise(keys[3]),
      "budget_scores": jax.random.uniform(keys[1], (*flags.shape, 2)),
      "exit_at": 9 - jnp.cumsum(jnp.ones_like(r.lengths), -1),
      "value_before": jax.random.uniform(keys[4], flags.shape),
      "value_after": jax.random.uniform(keys[5], flags.shape),
    },
  )
  keep = r.valid.at[0, 0].set(False)
  values = jax.random.normal(keys[5], r.lengths.shape)
  old, ref = r.sampler_log_probs + noise(keys[0]) / 4, r.sampler_log_probs + noise(keys[1])
  weights = losses.token_mean(r.mask, keep)
  batch = Batch(r, values, keep, values, weights, old, ref)
  return batch, old + noise(keys[2]) / 4

"""The length-controlled methods: rewards, budgets, filters and a merge."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import budgets, filters, rewards
from lcrl.groups import Groups
from lcrl.merging.selective import selective_merge
from tests.golden_adapters.groups import alone, compiled


def soft_overlong_punishment(inputs, params):
  lengths = jnp.array(inputs["lengths"])
  overlong = partial(
    rewards.soft_overlong_reward,
    jnp.zeros(lengths.shape),
    lengths,
    max_length=params["L_max"],
    buffer=params["L_cache"],
  )
  return {
    "trl": overlong(),
    "verl_unclipped_below": overlong(factor=params["verl_penalty_factor"], floor=-math.inf),
    "luspo": overlong(factor=params["luspo_factor"], floor=-math.inf),
  }


def dynamic_sampling(inputs, params):
  groups = Groups(inputs["group_id"])
  keep = np.asarray(filters.nonconstant_groups(groups(inputs["metric"]), groups.valid))
  return {
    "kept_groups": groups.labels[keep.any(-1)],
    "kept_rollouts": np.flatnonzero(groups.rows(keep)),
  }


def grpo_lambda(inputs, params):
  lengths, correct = jnp.array(inputs["lengths"]), jnp.array(inputs["correct"]) > 0
  valid = jnp.ones(correct.shape, bool)
  easy = rewards.easiest_groups(correct, valid, share=params["lam"])
  got = {"group_accuracy": correct.mean(-1), "top_groups": easy}
  for name, ddof in {"population": 0, "sample": 1}.items():
    got[f"reward_{name}_std"] = rewards.grpo_lambda_reward(
      correct,
      correct,
      lengths,
      valid,
      share=params["lam"],
      alpha=params["alpha"],
      eps=params["std_eps"],
      ddof=ddof,
    )
  return got


def laser(inputs, params):
  base, alpha = jnp.array(inputs["base_reward"], float), params["alpha"]
  lengths = jnp.array(inputs["lengths"])
  knobs = {
    "reward": {"alpha": alpha},
    "penalty": {"alpha": 0.0, "late": alpha},
    "hybrid": {"alpha": alpha, "late": alpha},
  }[params["type"]]
  targets = jnp.full(lengths.shape, params["L_T"])
  return {"reward": rewards.step_bonus_reward(base, base == 1, lengths, targets, **knobs)}


def laser_repo_group_baselines(inputs, params):
  groups = Groups(inputs["group_id"])
  base, lengths = groups(inputs["base_reward"]), groups(inputs["lengths"])
  args = (base, base == 1, lengths, groups.valid)
  knobs = {"alpha": params["coef"], "eps": params["eps"], "lone_raw": True}
  return {
    "kimi": groups.rows(rewards.kimi_reward(*args, spared=base == -1, **knobs)),
    "efficient_reasoning": groups.rows(rewards.sigmoid_length_reward(*args, ddof=1, **knobs)),
  }


def length_reward_unified(inputs, params):
  lengths, correct = jnp.array(inputs["lengths"]), jnp.array(inputs["correct"]) > 0
  base = rewards.verdict_reward(correct, wrong=params["reward_wrong"])
  targets, valid = jnp.full(lengths.shape, params["L_T"]), jnp.ones(lengths.shape, bool)
  group, step = (base, correct, lengths, valid), (base, correct, lengths, targets)
  alpha = params["alpha_step"]
  exact, most = params["alpha_l1_exact"], params["alpha_l1_max"]
  return {
    "truncation": rewards.truncated_reward(base, lengths, targets, late=params["rho"]),
    "efficient_reasoning": alone(rewards.sigmoid_length_reward)(
      *group, alpha=params["alpha_group"]
    ),
    "kimi": alone(rewards.kimi_reward)(*group),
    "l1_exact": rewards.exact_length_reward(base, lengths, targets, alpha=exact),
    "l1_max": rewards.max_length_reward(
      correct, lengths, targets, alpha=most, delta=params["delta_l1_max"]
    ),
    "laser": rewards.step_bonus_reward(*step, alpha=alpha),
    "laser_de": rewards.step_bonus_reward(*step, alpha=alpha, explore=alpha),
  }


def dler_truncation_reward(inputs, params):
  lengths, correct = jnp.array(inputs["lengths"]), jnp.array(inputs["correct"], float)
  truncated = partial(
    rewards.truncated_reward, correct, lengths, jnp.full(lengths.shape, params["L_trunc"])
  )
  coefficient = params["public_code_penalty_coef"]
  return {"paper": truncated(), "public_code_scaled": truncated(late_scale=coefficient)}


def siri_length_cap_reward(inputs, params):
  lengths, correct = jnp.array(inputs["length_to_answer"]), jnp.array(inputs["correct"], float)
  limits = jnp.full(lengths.shape, params["L"])
  return {"reward": rewards.truncated_reward(correct, lengths, limits)}


LEVELS = ("low", "medium", "high")


def laser_d_targets(inputs, params):
  lengths = [jnp.array(inputs["monitor_lengths"][level], int) for level in LEVELS]
  limits = (params["lower_bound"], params["upper_bound"], params["interval"])
  thresholds = rewards.length_thresholds(*limits)
  coverage = jnp.stack(
    [rewards.length_coverage(x, jnp.ones(x.shape, bool), thresholds) for x in lengths]
  )
  down = params["round_method"] == "floor"
  expected = rewards.expected_right(params["K"], round_down=down)
  targets = rewards.covering_length(
    coverage / params["expected_n_correct"], thresholds, expected, params["fallback_length"]
  )
  return {
    "thresholds": thresholds,
    "coverage": dict(zip(LEVELS, coverage, strict=True)),
    "targets": dict(zip(LEVELS, targets, strict=True)),
  }


def _laser_d(inputs, params, **knobs):
  groups = Groups(inputs["group_id"])
  base, lengths = groups(inputs["base_reward"]), groups(inputs["lengths"])
  levels = rewards.accuracy_level(base == 1, groups.valid)
  by_level = jnp.array([params["targets"][level] for level in LEVELS])
  targets = jnp.broadcast_to(by_level[levels][:, None], lengths.shape)
  knobs = {"alpha": params["alpha"], "spared": base == -1, **knobs}
  shaped = rewards.step_bonus_reward(base, base == 1, lengths, targets, **knobs)
  return {"reward": groups.rows(shaped), "target_per_rollout": groups.rows(targets)}


def laser_d(inputs, params):
  return _laser_d(inputs, params)


def laser_de(inputs, params):
  return _laser_d(inputs, params, explore=params["alpha"])


def curriculum_reward(inputs, params):
  lengths, *flags = (
    jnp.array(inputs[name], float) for name in ("lengths", "correct", "has_think", "has_answer")
  )
  targets = jnp.full(lengths.shape, params["L"])
  knobs = {
    "right": params["R_cor"],
    "think": params["alpha_think"],
    "answer": params["alpha_answer"],
    "correct_weight": params["lambda_c"],
    "length_weight": params["lambda_l"],
    "format_weight": params["lambda_f"],
  }
  got = {}
  for name in ("triangular", "band"):
    score = getattr(rewards, name)(peak=params["R_max"])(lengths, targets)
    total = rewards.curriculum_reward(flags[0], score, *flags[1:], **knobs)
    got |= {name: score, f"total_{name}": total}
  return got


def _scheduled(schedule, steps):
  stage = budgets.scheduled(schedule=schedule)
  knobs = {"key": jax.random.key(0), "group_size": 1}
  return [stage.apply((), jnp.zeros(1, int), step=s, **knobs)[0].target[0, 0] for s in steps]


def curriculum_budget_exponential(inputs, params):
  steps = jnp.array(inputs["step"])
  knobs = {"start": params["B_0"], "decay": params["gamma"], "interval": params["T_interval"]}
  schedule = budgets.exponential_decay(**knobs)
  return {"budget": schedule(steps), "budget_int": _scheduled(schedule, steps)}


def curriculum_budget_decay_points(inputs, params):
  steps = jnp.array(inputs["step"])
  knobs = {"start": params["S_0"], "end": params["S_f"]}
  knobs |= {"points": params["n"], "total": params["total_steps"]}
  return {
    "exponential": budgets.geometric_points_length(steps, **knobs),
    "linear": budgets.linear_points_length(steps, **knobs),
  }


def siri_length_schedule(inputs, params):
  steps = jnp.array(inputs["step"])
  knobs = {"low": params["L_min"], "high": params["L_max"], "period": params["T"]}
  return {
    "cosine": budgets.cosine_cycle_length(steps, **knobs),
    "stair_compress_first": budgets.stair_length(steps, **knobs),
    "stair_cosine": budgets.stair_cosine_length(steps, **knobs),
  }


def _unknown(history):
  return jnp.array(jnp.inf if history is None else history, float)


def _known(history):
  return float(history) if np.isfinite(history) else None


def hapo(inputs, params):
  correct, lengths = jnp.array(inputs["correct"]), jnp.array(inputs["lengths"])
  shortest, valid = _unknown(inputs["history_min"]), jnp.ones(lengths.shape, bool)
  history = jnp.broadcast_to(shortest, lengths.shape)
  weight, floor = params["w"], params["clip_correct"]
  cosine = weight * rewards.cosine_history_score(correct, lengths, history, floor=floor)
  linear = rewards.linear_history_score(
    correct, lengths, history, floor=floor, tolerance=params["tolerance_ratio_linear"]
  )
  return {
    "length_reward_cosine": cosine,
    "length_reward_linear": weight * linear,
    "reward_cosine": rewards.verdict_reward(correct) + cosine,
    "new_history_min": alone(rewards.shortest_right_length)(shortest, correct, lengths, valid),
  }


def hapo_history_mean(inputs, params):
  lengths = jnp.array(inputs["correct_lengths"], int)
  correct = jnp.ones(lengths.shape, bool)
  mean, count = _unknown(inputs["history_mean"]), jnp.array(inputs["history_count"])
  mean, count = alone(rewards.mean_right_length)(mean, count, correct, lengths, correct)
  return {"new_mean": mean, "new_count": count}


def hapo_repetition(inputs, params):
  tokens = jnp.array(inputs["tokens"], int)
  return {"reward": rewards.repetition_reward(tokens, jnp.ones(tokens.shape, bool), **params)}


def tldr_reward(inputs, params):
  lengths, levels = jnp.array(inputs["lengths"]), jnp.array(inputs["level"])
  correct = jnp.array(inputs["correct"])
  knobs = {"penalty_by_level": params["penalty_by_level"], "max_length": params["L_max"]}
  return {"reward": rewards.level_penalty_reward(correct, correct, lengths, levels, **knobs)}


def da_dler_budget(inputs, params):
  correct = jnp.array(inputs["correct"])
  thresholds, limits = params["thresholds"], params["lengths_hard_to_easy"]
  valid = jnp.ones(correct.shape, bool)
  limit = rewards.tiered_limit(correct, valid, thresholds=thresholds, limits=limits)
  return {"accuracy": correct.mean(-1), "L_trunc": limit}


def crf(inputs, params):
  correct, scores = jnp.array(inputs["outcome_reward"]), jnp.array(inputs["conciseness"])
  valid = jnp.ones(correct.shape, bool)
  return {
    "d_q": alone(rewards.difficulty_factor)(correct, valid),
    "reward": alone(rewards.conciseness_reward)(correct, scores, valid, inputs["s"], **params),
  }


def pear(inputs, params):
  entropy, end = jnp.array(inputs["entropy"], float), inputs["think_end_index"]
  mask = jnp.ones(entropy.shape, bool)
  thinking, answer = rewards.phase_entropy(entropy, mask, jnp.array(-1 if end is None else end))
  gap = rewards.entropy_gap(thinking, answer, alpha=params["alpha"])
  correct = jnp.array(inputs["correct"])
  reward = rewards.pear_reward(correct, gap, scale=params["s"], wrong=params["r_fmt"])
  return {"H_think": thinking, "H_answer": answer, "penalty": gap, "reward": reward}


def dler_selective_merge(inputs, params):
  base, tuned = ([jnp.array(x) for x in inputs[name]] for name in ("base", "tuned"))
  knobs = {"fraction": params["keep_fraction"], "scale": params["scale"]}
  return {
    "merged_per_tensor": selective_merge(base, tuned, **knobs),
    "merged_global": selective_merge(base, tuned, whole_model=True, **knobs),
  }


# What only numpy can say: indices of unknown number, None for a history that is not there.
FINISH = {
  "top_groups": np.flatnonzero,
  "new_history_min": _known,
  "new_mean": _known,
}
ADAPTERS = {
  f"rl_a/{f.__name__}": compiled(f, **FINISH)
  for f in [
    soft_overlong_punishment,
    grpo_lambda,
    laser,
    laser_repo_group_baselines,
    length_reward_unified,
    dler_truncation_reward,
    siri_length_cap_reward,
    laser_d_targets,
    laser_d,
    laser_de,
    curriculum_reward,
    curriculum_budget_exponential,
    curriculum_budget_decay_points,
    siri_length_schedule,
    hapo,
    hapo_history_mean,
    hapo_repetition,
    tldr_reward,
    da_dler_budget,
    crf,
    pear,
    dler_selective_merge,
  ]
}
ADAPTERS["rl_a/dynamic_sampling"] = dynamic_sampling

"""GRPO's core and the length-controlled methods built on it."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import advantages, budgets, filters, losses, rewards
from lcrl.merging.selective import selective_merge
from tests.golden_adapters.groups import Groups, blocks


def adv_grpo(inputs, params):
  groups = Groups(inputs["group_id"])
  r = groups(inputs["rewards"])
  normalized = advantages.group_normalized_advantage(r, groups.valid, **params)
  centered = advantages.group_centered_advantage(r, groups.valid)
  return {"adv_grpo": groups.rows(normalized), "adv_dr_grpo": groups.rows(centered)}


def adv_rloo(inputs, params):
  groups = Groups(inputs["group_id"])
  r = groups(inputs["rewards"])
  return {"adv": groups.rows(advantages.leave_one_out_advantage(r, groups.valid))}


def adv_trl_scale_rewards(inputs, params):
  r = blocks(inputs["rewards"], params["G"])
  advantage = {
    "group": partial(advantages.group_normalized_advantage, lone_raw=False),
    "batch": advantages.batch_scaled_advantage,
    "none": lambda r, keep, **_: advantages.group_centered_advantage(r, keep, lone_raw=False),
  }[params["scale_rewards"]]
  adv = advantage(r, ~jnp.isnan(r), ddof=params["ddof"], eps=params["eps"])
  return {"adv": adv.reshape(-1)}


def adv_std_conventions(inputs, params):
  r, eps = blocks(inputs["rewards"], params["G"]), params["eps"]
  knobs = {
    "sample_eps_outside": {"ddof": 1, "eps": eps},
    "population_eps_outside": {"ddof": 0, "eps": eps},
    "population_eps_inside_sqrt": {"ddof": 0, "eps": 0.0, "var_eps": eps},
    "population_max_floor_1e5": {"ddof": 0, "eps": 0.0, "min_std": 1e-5},
  }
  keep = jnp.ones(r.shape, bool)
  return {
    name: advantages.group_normalized_advantage(r, keep, lone_raw=False, **k).reshape(-1)
    for name, k in knobs.items()
  }


def adv_batch_norm(inputs, params):
  groups = Groups(inputs["group_id"])
  centered = advantages.group_centered_advantage(groups(inputs["rewards"]), groups.valid)
  lengths = groups(inputs["lengths"])
  whiten = partial(advantages.whitened, ddof=params["ddof"], eps=params["eps_inside_rsqrt"])
  return {
    "adv_token_weighted": groups.rows(whiten(centered, lengths)),
    "adv_sequence_weighted": groups.rows(whiten(centered, groups.valid)),
  }


def adv_reinforce_pp(inputs, params):
  lengths = jnp.array(inputs["lengths"])
  mask = jnp.arange(max(inputs["lengths"]))[None] < lengths[:, None]
  r = jnp.array(inputs["rewards"], float)
  returns = advantages.discounted_return(r, mask, gamma=params["gamma"])
  adv = advantages.whitened(returns, mask, ddof=params["ddof"], eps=params["eps_inside_rsqrt"])
  return {"adv": adv[:, 0]}


def kl_estimators(inputs, params):
  log_probs, ref = jnp.array(inputs["logp"]), jnp.array(inputs["ref_logp"])
  mask = jnp.ones(log_probs.shape, bool)
  limits = {"log_ratio_limit": params["log_ratio_clip"], "limit": params["k3_clip"]}
  return {
    "k1": losses.k1_kl(log_probs, ref, mask),
    "k2": losses.k2_kl(log_probs, ref, mask),
    "k3": losses.k3_kl(log_probs, ref, mask, **limits),
    "abs": losses.abs_kl(log_probs, ref, mask),
  }


def loss_aggregation(inputs, params):
  token_loss, mask = jnp.array(inputs["token_loss"]), jnp.array(inputs["mask"]) > 0
  keep, length = jnp.ones(mask.shape[0], bool), params["constant_length"]
  weights = {
    "token_mean": losses.token_mean(mask, keep),
    "seq_mean_token_sum": losses.sequence_sum(mask, keep),
    "seq_mean_token_mean": losses.sequence_mean(mask, keep),
    "seq_mean_token_sum_norm": losses.fixed_total(mask, keep, total=length),
    "seq_mean_token_sum_norm_over_batch": losses.fixed_length(mask, keep, length=length),
  }
  return {name: jnp.sum(w * token_loss) for name, w in weights.items()}


WEIGHTS = {"token-mean": losses.token_mean, "seq-mean-token-mean": losses.sequence_mean}


def _arrays(inputs):
  names = ("logp", "old_logp", "adv", "mask")
  log_probs, old, adv, mask = (jnp.array(inputs[name], float) for name in names)
  return log_probs, old, adv, mask > 0


def _sum(loss, weigh, inputs):
  """Loss and gradient of the sum of weights times token losses."""
  log_probs, old, adv, mask = _arrays(inputs)

  def total(log_probs):
    weights = weigh(mask, jnp.ones(mask.shape[0], bool))
    return jnp.sum(weights * loss(log_probs, old, adv, mask))

  return jax.value_and_grad(total)(log_probs)


def loss_ppo_dual_clip(inputs, params):
  knobs = {"clip_low": params["clip_low"], "clip_high": params["clip_high"]}
  knobs["dual_clip"] = params["dual_clip_c"]
  loss = partial(losses.clipped_surrogate_loss, **knobs)
  value, grad = _sum(loss, WEIGHTS[params["loss_agg_mode"]], inputs)
  clipped, dual, kl = losses.surrogate_fractions(*_arrays(inputs), **knobs)
  return {
    "loss": value,
    "grad_logp": grad,
    "clipfrac": clipped,
    "clipfrac_lower": dual,
    "approx_kl_k1": kl,
  }


def loss_gspo(inputs, params):
  knobs = {"ratio": losses.sequence_ratio, **params}
  loss = partial(losses.clipped_surrogate_loss, **knobs)
  value, grad = _sum(loss, losses.sequence_mean, inputs)
  clipped = losses.surrogate_fractions(*_arrays(inputs), **knobs).clipped
  return {"loss": value, "grad_logp": grad, "clipfrac": clipped}


def loss_cispo(inputs, params):
  weigh = WEIGHTS[params["loss_agg_mode"]]
  low, high = 1 - params["clip_low"], 1 + params["clip_high"]
  upper = params["trl_epsilon_high_absolute"]
  both = _sum(partial(losses.cispo_loss, lower=low, upper=high), weigh, inputs)
  above = _sum(partial(losses.cispo_loss, upper=upper), weigh, inputs)
  return {
    "loss_two_sided": both[0],
    "grad_two_sided": both[1],
    "loss_upper_only": above[0],
    "grad_upper_only": above[1],
  }


def loss_trl_types(inputs, params):
  ref = jnp.array(inputs["ref_logp"])
  clip = {"clip_low": params["epsilon"], "clip_high": params["epsilon_high"]}
  weights = {
    "grpo": partial(losses.sequence_mean, count_empty=True),
    "bnpo": losses.token_mean,
    "dr_grpo": partial(losses.fixed_length, length=params["max_completion_length"]),
    "dapo": partial(losses.fixed_total, total=params["num_items_in_batch"]),
  }

  def loss(log_probs, old, adv, mask, kl):
    surrogate = losses.clipped_surrogate_loss(log_probs, old, adv, mask, **clip)
    return surrogate + kl(log_probs, ref, mask)

  got = {}
  for beta in (0.0, 0.04):
    for name, weigh in weights.items():
      value, grad = _sum(partial(loss, kl=losses.k3(beta=beta)), weigh, inputs)
      got |= {f"{name}_beta{beta}": value, f"grad_{name}_beta{beta}": grad}
  return got


def loss_two_sided_delta(inputs, params):
  loss = partial(
    losses.clipped_surrogate_loss,
    clip_low=params["epsilon"],
    clip_high=params["epsilon_high"],
    ratio_cap=params["delta"],
  )
  value, grad = _sum(loss, partial(losses.sequence_mean, count_empty=True), inputs)
  return {"loss": value, "grad_logp": grad}


def luspo(inputs, params):
  loss = partial(
    losses.clipped_surrogate_loss,
    clip_low=params["epsilon"],
    clip_high=params["epsilon_high"],
    ratio=losses.sequence_ratio,
  )
  long = _sum(loss, partial(losses.fixed_length, length=1), inputs)
  plain = _sum(loss, partial(losses.sequence_mean, count_empty=True), inputs)
  return {
    "loss_luspo": long[0],
    "grad_luspo": long[1],
    "loss_gspo": plain[0],
    "grad_gspo": plain[1],
  }


def tis_weights(inputs, params):
  old, sampler = jnp.array(inputs["trainer_logp"]), jnp.array(inputs["sampler_logp"])
  mask, high = jnp.array(inputs["mask"]) > 0, params["threshold"]
  got = {}
  for level, per_sequence in {"token": False, "sequence": True}.items():
    knobs = {"high": high, "per_sequence": per_sequence}
    cut = losses.truncated_importance(old, sampler, mask, **knobs)
    got[f"verl_{level}"] = cut
    got[f"verl_{level}_batchnorm"] = losses.mean_one(cut, mask, per_sequence=per_sequence)
    cut = losses.truncated_importance(old, sampler, mask, log_limit=math.inf, **knobs)
    zero = losses.rejected_importance(old, sampler, mask, log_limit=math.inf, **knobs)
    for name, weights in {"truncate": cut, "mask": zero}.items():
      weights = jnp.where(mask, weights, 1.0)  # TRL's padding
      some = jnp.argmax(mask, -1)[:, None]
      got[f"trl_{level}_{name}"] = (
        jnp.take_along_axis(weights, some, -1) if per_sequence else weights
      )
  return got


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
  alpha, both = params["alpha_step"], {"alpha": params["alpha_step"]}
  both["explore"] = alpha
  exact, most = params["alpha_l1_exact"], params["alpha_l1_max"]
  return {
    "truncation": rewards.truncated_reward(base, lengths, targets, late=params["rho"]),
    "efficient_reasoning": rewards.sigmoid_length_reward(*group, alpha=params["alpha_group"]),
    "kimi": rewards.kimi_reward(*group),
    "l1_exact": rewards.exact_length_reward(base, lengths, targets, alpha=exact),
    "l1_max": rewards.max_length_reward(
      correct, lengths, targets, alpha=most, delta=params["delta_l1_max"]
    ),
    "laser": rewards.step_bonus_reward(*step, alpha=alpha),
    "laser_de": rewards.step_bonus_reward(*step, **both),
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


def drpo(inputs, params):
  groups = Groups(inputs["group_id"])
  log_probs, old = groups(inputs["logp"]), groups(inputs["old_logp"])
  mask, correct = groups(inputs["mask"]) > 0, groups(inputs["reward"]) > 0
  arrays = (old, correct, mask, groups.valid)
  knobs = {name: params[name] for name in ("tau", "delta", "beta")}
  knobs |= {"max_length": params["C_max_length"], "released_value": True}
  both = jax.value_and_grad(losses.drpo_loss)
  value, grad = both(log_probs, *arrays, temperature=params["Lambda"], **knobs)
  disco, disco_grad = both(log_probs, *arrays, temperature=None, **knobs)
  kl = losses.surrogate_fractions(log_probs, old, correct, mask).old_kl
  share = losses.drpo_positive_weights(
    correct,
    mask.sum(-1),
    groups.valid,
    max_length=params["C_max_length"],
    temperature=params["Lambda"],
  )
  return {
    "loss": value,
    "grad_logp": groups.rows(grad),
    "approx_kl": kl,
    "disco_loss": disco,
    "disco_grad_logp": groups.rows(disco_grad),
    "positive_weight": groups.rows(share),
  }


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
    "new_history_min": rewards.shortest_right_length(shortest, correct, lengths, valid),
  }


def hapo_history_mean(inputs, params):
  lengths = jnp.array(inputs["correct_lengths"], int)
  correct = jnp.ones(lengths.shape, bool)
  mean, count = _unknown(inputs["history_mean"]), jnp.array(inputs["history_count"])
  mean, count = rewards.mean_right_length(mean, count, correct, lengths, correct)
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
    "d_q": rewards.difficulty_factor(correct, valid),
    "reward": rewards.conciseness_reward(correct, scores, valid, inputs["s"], **params),
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


_ALL = [
  adv_grpo,
  adv_rloo,
  adv_trl_scale_rewards,
  adv_std_conventions,
  adv_batch_norm,
  adv_reinforce_pp,
  kl_estimators,
  loss_aggregation,
  loss_ppo_dual_clip,
  loss_gspo,
  loss_cispo,
  loss_trl_types,
  loss_two_sided_delta,
  luspo,
  tis_weights,
  soft_overlong_punishment,
  dynamic_sampling,
  grpo_lambda,
  laser,
  laser_repo_group_baselines,
  length_reward_unified,
  dler_truncation_reward,
  siri_length_cap_reward,
  drpo,
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


# What only numpy can say: indices of unknown number, None for a history that is not there.
_FINISH = {
  "top_groups": np.flatnonzero,
  "new_history_min": _known,
  "new_mean": _known,
}


def _compiled(adapter):
  """One program a case: op by op, compiling takes most of the time."""

  def call(inputs, params):
    got = jax.jit(lambda: adapter(inputs, params))()
    return {name: _FINISH.get(name, lambda x: x)(value) for name, value in got.items()}

  return call


ADAPTERS = {f"rl_a/{adapter.__name__}": _compiled(adapter) for adapter in _ALL}
ADAPTERS["rl_a/dynamic_sampling"] = dynamic_sampling

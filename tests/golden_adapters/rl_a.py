"""GRPO's core and the length-controlled methods built on it."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import advantages, filters, losses, rewards
from tests.golden_adapters.groups import Groups, blocks

VERL = {"log_ratio_limit": 20.0, "limit": 10.0}


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
  mask = jnp.arange(lengths.max()) < lengths[:, None]
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
  weights = weigh(mask, jnp.ones(mask.shape[0], bool))
  return jax.value_and_grad(lambda x: jnp.sum(weights * loss(x, old, adv, mask)))(log_probs)


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
  keep = filters.nonconstant_groups(groups(inputs["metric"]), groups.valid)
  return {
    "kept_groups": groups.labels[np.asarray(keep).any(-1)],
    "kept_rollouts": np.flatnonzero(groups.rows(keep)),
  }


def grpo_lambda(inputs, params):
  lengths, correct = jnp.array(inputs["lengths"]), jnp.array(inputs["correct"]) > 0
  valid = jnp.ones(correct.shape, bool)
  easy = rewards.easiest_groups(correct, valid, share=params["lam"])
  got = {"group_accuracy": correct.mean(-1), "top_groups": np.flatnonzero(easy)}
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
]
ADAPTERS = {f"rl_a/{adapter.__name__}": adapter for adapter in _ALL}

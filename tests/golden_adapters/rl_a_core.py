"""GRPO's core: advantages, losses, weights, importance weights."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp

from lcrl import advantages, losses
from lcrl.groups import Groups
from tests.golden_adapters.groups import blocks, compiled


def adv_grpo(inputs, params):
  groups = Groups(inputs["group_id"])
  r = groups(inputs["rewards"])
  normalized = advantages.group_normalized_advantage(r, groups.valid, lone_raw=True, **params)
  centered = advantages.group_centered_advantage(r, groups.valid, lone_raw=True)
  return {"adv_grpo": groups.rows(normalized), "adv_dr_grpo": groups.rows(centered)}


def adv_rloo(inputs, params):
  groups = Groups(inputs["group_id"])
  r = groups(inputs["rewards"])
  return {"adv": groups.rows(advantages.leave_one_out_advantage(r, groups.valid, lone_raw=True))}


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
  r = groups(inputs["rewards"])
  centered = advantages.group_centered_advantage(r, groups.valid, lone_raw=True)
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
  knobs |= {"dual_clip": params["dual_clip_c"]}
  knobs |= {"ratio": partial(losses.token_ratio, log_limit=20.0)}
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
  knobs = {"ratio": partial(losses.sequence_ratio, log_limit=10.0), **params}
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
      value, grad = _sum(partial(loss, kl=losses.policy.k3(beta=beta)), weigh, inputs)
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
    got[f"verl_{level}_batchnorm"] = losses.policy.mean_one(cut, mask, per_sequence=per_sequence)
    cut = losses.truncated_importance(old, sampler, mask, log_limit=math.inf, **knobs)
    zero = losses.rejected_importance(old, sampler, mask, log_limit=math.inf, **knobs)
    for name, weights in {"truncate": cut, "mask": zero}.items():
      weights = jnp.where(mask, weights, 1.0)  # TRL's padding
      some = jnp.argmax(mask, -1)[:, None]
      got[f"trl_{level}_{name}"] = (
        jnp.take_along_axis(weights, some, -1) if per_sequence else weights
      )
  return got


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


ADAPTERS = {
  f"rl_a/{f.__name__}": compiled(f)
  for f in [
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
    drpo,
  ]
}

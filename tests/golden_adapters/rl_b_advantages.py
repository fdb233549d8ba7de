"""Advantages of the second list of methods."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp

from lcrl import advantages, rewards
from lcrl.groups import Groups
from lcrl.masked import masked_mean
from tests.golden_adapters.groups import alone, compiled


def canon_length(inputs, params):
  groups = Groups(inputs["group_id"])
  adv = advantages.canon_advantage(
    groups(inputs["rewards"]),
    groups(inputs["lengths"]),
    groups.valid,
    mu=params["mu"],
    high_weight=params["alpha"],
    lone_raw=True,
  )
  return {"advantage": groups.rows(adv) / params["max_length"]}


def _entropies(inputs, groups):
  """Rewards and mean token entropies."""
  entropy, lengths = groups(inputs["token_entropy"]), groups(inputs["lengths"])
  sampled = jnp.arange(entropy.shape[-1])[None, None] < lengths[..., None]
  return groups(inputs["rewards"]), masked_mean(entropy, sampled, -1)


def canon_entropy(inputs, params):
  groups = Groups(inputs["group_id"])
  adv = advantages.canon_advantage(
    *_entropies(inputs, groups),
    groups.valid,
    mu=params["mu"],
    low_weight=params["alpha"],
    lone_raw=True,
  )
  return {"advantage": groups.rows(adv) / params["max_length"]}


RESTARTS = partial(advantages.cosine_restarts, warmup=30, period=40)
SCHEDULES = {
  "accuracy": advantages.accuracy_mix(),
  "cosine_first_intra": RESTARTS(low=0.0, high=0.6),
  "cosine_first_inter": RESTARTS(low=0.4, high=1.0, inter_first=True),
}


def canon_schedule(inputs, params):
  groups = Groups(inputs["group_id"])
  reward, entropy = _entropies(inputs, groups)
  mean = masked_mean(reward, groups.valid)
  mu = SCHEDULES[params["schedule"]](jnp.array(params["step"]), mean)
  adv = advantages.canon_advantage(reward, entropy, groups.valid, mu=mu, lone_raw=True)
  return {"advantage": groups.rows(adv) / params["max_length"]}


def canon_cosine_weight(inputs, params):
  period = (params["total"] - params["warmup"]) / params["cycles"]
  knobs = {"low": params["min"], "high": params["max"], "warmup": params["warmup"]}
  step = jnp.array(inputs["step"])
  return {"intra_weight": advantages.cosine_restarts_weight(step, period=period, **knobs)}


def hbpo_advantage(inputs, params):
  groups = Groups(inputs["group_id"])
  arrays = groups(inputs["rewards"]), groups(inputs["budgets"]), groups.valid
  advantage = partial(
    advantages.budget_subgroup_advantage,
    *arrays,
    max_length=params["L_max"],
    beta=params["beta"],
    eps=params["eps"],
  )
  return {
    "advantage_paper": groups.rows(advantage()),
    "advantage_released_code": groups.rows(advantage(intra_weight=2.0, pi=3.1416)),
  }


def multi_gamma_returns(inputs, params):
  rewards_, values = jnp.array(inputs["rewards"]), jnp.array(inputs["values"])
  mask, gammas = jnp.array(inputs["mask"]) > 0, params["gammas"]
  visible = jnp.where(mask, values, 0.0)
  if rewards_.ndim == 3:
    returns = advantages.multi_discount_return(rewards_, mask, gammas=gammas)
    return {"returns": returns, "advantages": returns - visible}
  knobs = {"gamma": gammas[0], "lam": params["lambda"]}
  adv = advantages.generalized_advantage(rewards_, values, mask, **knobs)
  return {"returns": adv + visible, "advantages": adv}


def constrained_mixed_advantage(inputs, params):
  main, components = jnp.array(inputs["adv_kl"]), jnp.array(inputs["adv_constraint"]).T
  mask, knobs = jnp.ones(main.shape, bool), {"ddof": params["ddof"], "eps": params["eps"]}
  multipliers = jnp.array(inputs["multiplier"], float)
  adv = rewards.component_mix(main, components, multipliers, mask, **knobs)
  return {"advantage": adv}


def advantage_level_average(inputs, params):
  components = jnp.array(inputs["component_rewards"], float)[:, None]
  arrays = components, jnp.ones(components.shape[1:], bool)
  return {
    "component_advantages": advantages.component_advantages(*arrays, **params)[:, 0],
    "advantage": advantages.component_average_advantage(*arrays, **params)[0],
  }


def qglas(inputs, params):
  r, lengths = jnp.array(inputs["rewards"], float), jnp.array(inputs["lengths"])
  keep, eps = jnp.ones(r.shape, bool), params["eps"]
  knobs = {name: params[name] for name in ("beta_min", "beta_max", "ddof", "eps")}
  base = alone(advantages.group_normalized_advantage)(
    r, keep, ddof=params["ddof"], eps=0.0, lone_raw=False
  )
  return {
    "base_advantage": base,
    "lambda_g": alone(advantages.qglas_weight)(r, base > 0, keep, **knobs),
    "h": alone(advantages.shortness_of_positive)(lengths, base > 0, cap=params["c"], eps=eps),
    "advantage": alone(advantages.qglas_advantage)(r, lengths, keep, cap=params["c"], **knobs),
  }


ADAPTERS = {
  f"rl_b/{f.__name__}": compiled(f)
  for f in [
    canon_length,
    canon_entropy,
    canon_schedule,
    canon_cosine_weight,
    hbpo_advantage,
    multi_gamma_returns,
    constrained_mixed_advantage,
    advantage_level_average,
    qglas,
  ]
}

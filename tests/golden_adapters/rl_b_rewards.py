"""Rewards of the second list of methods."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl import advantages, rewards
from lcrl.groups import Groups
from lcrl.rewards import modes
from tests.golden_adapters.groups import alone, compiled


def _group(inputs, *names):
  """Arrays of one group of rollouts, and that all of them are valid."""
  arrays = [jnp.array(inputs[name]) for name in names]
  return *arrays, jnp.ones(arrays[0].shape, bool)


def hbpo_reward(inputs, params):
  length, budget, correct = (jnp.array(inputs[n]) for n in ("length", "budget", "correct"))
  knobs = {"max_length": params["L_max"], "beta": params["beta"], "alpha": params["alpha"]}
  reward = partial(rewards.hbpo_reward, correct, length, budget, **knobs)
  return {
    "reward_paper": reward(),
    "reward_released_code": reward(plateau=False, pi=3.1416),
  }


def _cosine(correct, lengths, params, **knobs):
  return rewards.cosine_length_reward(
    jnp.array(correct),
    jnp.array(lengths),
    max_length=params["max_len"],
    right=(params["correct_at_0"], params["correct_at_L"]),
    wrong=(params["wrong_at_0"], params["wrong_at_L"]),
    exceed=params["exceed"],
    **knobs,
  )


def cosine_length_reward(inputs, params):
  margin = params["exceed_margin"]
  return {"reward": _cosine(inputs["correct"], inputs["lengths"], params, margin=margin)}


def cosine_clipped_short(inputs, params):
  shortest = params["clip_len"]
  return {"reward": _cosine(inputs["correct"], inputs["length"], params, shortest=shortest)}


def _padded(rows):
  """Ragged rows -> [B, T] and its mask."""
  width = max(map(len, rows))
  padded = jnp.array([row + [0] * (width - len(row)) for row in rows])
  return padded, jnp.arange(width)[None] < jnp.array([len(row) for row in rows])[:, None]


def ngram_repetition_dense(inputs, params):
  knobs = {"penalty": params["penalty"], "first_only": params["only_start"]}
  tokens, mask = _padded(inputs["tokens"])
  reward = advantages.dense_repetition_reward(tokens, mask, ngram=params["n"], **knobs)
  return {"token_reward": reward}


def ngram_repetition_sparse(inputs, params):
  knobs = {"ngram": params["n"], "max_penalty": params["max_penalty"]}
  return {"reward": rewards.distinct_ngrams_reward(*_padded(inputs["tokens"]), **knobs)}


TAGS = {"none": modes.NO_TAG, "easy": modes.EASY, "hard": modes.HARD}


def adactrl_reward(inputs, params):
  groups = Groups(inputs["group_id"])
  correct, lengths = groups(inputs["correct"]), groups(inputs["lengths"])
  tags = groups([TAGS[tag] for tag in inputs["tag"]])
  arrays, threshold = (correct, lengths, tags, groups.valid), params["threshold"]
  fit = rewards.calibration_score(correct, tags, groups.valid, threshold=threshold)
  weights = {"length_weight": params["w_len"], "calibration_weight": params["w_calib"]}
  no_weights = {"length_weight": 0.0, "calibration_weight": 0.0}
  total = partial(rewards.adactrl_reward, *arrays, threshold=threshold)
  return {
    "length_reward": groups.rows(rewards.easy_length_score(*arrays)),
    "calibration_reward": groups.rows(fit),
    "outcome": groups.rows(total(**no_weights)),
    "total": groups.rows(total(**weights)),
  }


def adaptive_long_short_reward(inputs, params):
  correct, valid = _group(inputs, "correct")
  long, threshold = jnp.array([mode == "long" for mode in inputs["mode"]]), params["theta"]
  preferred = alone(rewards.mode_is_preferred)(correct, long, valid, threshold=threshold)
  values = {"right": params["r_correct"], "wrong": params["r_wrong"], "bonus": params["bonus"]}
  return {
    "acc_long": alone(rewards.mode_accuracy)(correct, long, valid),
    "acc_short": alone(rewards.mode_accuracy)(correct, ~long, valid),
    "preferred": jnp.any(preferred & long),
    "reward": alone(rewards.preferred_mode_reward)(
      correct, long, valid, threshold=threshold, **values
    ),
  }


def lcpo_exact(inputs, params):
  correct, length, target = (jnp.array(inputs[n]) for n in ("correct", "length", "n_target"))
  return {"reward": rewards.exact_length_reward(correct, length, target, **params)}


def lcpo_max(inputs, params):
  arrays = [jnp.array(inputs[n]) for n in ("correct", "length", "n_target")]
  alpha, delta = params["alpha"], params["delta"]
  return {
    "reward_paper": rewards.max_length_reward(*arrays, alpha=alpha, delta=delta),
    # The released slope is half the paper's.
    "reward_released_code": rewards.max_length_reward(*arrays, alpha=alpha / 2, delta=0.5),
  }


def thinkprune_reward(inputs, params):
  verdict, length = jnp.array(inputs["correct_within_limit"]), jnp.array(inputs["length"])
  return {"reward": rewards.truncated_reward(verdict, length, jnp.array(params["limit"]))}


def kimi_length_reward(inputs, params):
  correct, lengths, valid = _group(inputs, "correct", "lengths")
  reward = partial(alone(rewards.kimi_reward), correct=correct, lengths=lengths, valid=valid)
  return {
    "length_reward": reward(0 * correct),
    "total": reward(correct, alpha=params["weight"]),
  }


def shorter_better(inputs, params):
  arrays = _group(inputs, "correct", "lengths")
  return {
    "sol": alone(rewards.sampled_optimal_length)(*arrays),
    "reward": alone(rewards.shorter_better_reward)(*arrays, **params),
  }


def alp_reward(inputs, params):
  correct, lengths, valid = _group(inputs, "correct", "lengths")
  return {
    "solve_rate_floored": alone(rewards.solve_rate)(correct, valid),
    "reward": alone(rewards.alp_reward)(correct, correct, lengths, valid, **params),
  }


def efficient_reasoning_sigmoid(inputs, params):
  correct, lengths, valid = _group(inputs, "correct", "lengths")
  reward = alone(rewards.sigmoid_length_reward)(correct, correct, lengths, valid, **params)
  return {
    "reward": reward,
    "rloo_advantage": alone(advantages.leave_one_out_advantage)(reward, valid),
  }


def o1_pruner_reward(inputs, params):
  correct, lengths, _ = _group(inputs, "correct", "lengths")
  reward = partial(
    alone(rewards.o1_pruner_reward),
    *(correct, lengths, correct, lengths),
    accuracy_weight=params["alpha"],
  )
  return {
    "reward_raw": reward(),
    "reward_clipped": reward(low=params["low"], high=params["high"]),
  }


def conciser_l_grpo(inputs, params):
  correct, lengths, valid = _group(inputs, "correct", "lengths")
  reward = partial(alone(rewards.conciser_reward), correct=correct, lengths=lengths, valid=valid)
  total = reward(correct, max_length=params["L_max"])
  knobs = {"ddof": params["ddof"], "eps": params["eps"], "lone_raw": False}
  return {
    "length_gate": jnp.all(correct > 0),
    "reward": total,
    "advantage": alone(advantages.group_normalized_advantage)(total, valid, **knobs),
  }


def lcr1_length_reward(inputs, params):
  correct, lengths, base, valid = _group(inputs, "correct", "lengths", "base_reward")
  knobs = {"paper": {}, "released_code": {"eps": 1e-4, "apply_to_incorrect": True}}
  got = {}
  for name, k in knobs.items():
    reward = partial(alone(rewards.lcr1_reward), correct=correct, lengths=lengths, valid=valid, **k)
    total = reward(base, alpha=params["len_coef"])
    got[f"length_reward_{name}"] = reward(0 * base)
    got[f"advantage_{name}"] = alone(advantages.group_centered_advantage)(
      total, valid, lone_raw=False
    )
  return got


def lcr1_compress_reward(inputs, params):
  arrays = [jnp.array(inputs[n]) for n in ("correct", "valid_len", "think_len")]
  return {"compress_reward": advantages.compression_reward(*arrays, weight=params["coef"])}


def gr3(inputs, params):
  arrays = _group(inputs, "rewards", "lengths")
  shaped = alone(rewards.gr3_reward)(*arrays, alpha=params["alpha"])
  knobs = {"ddof": params["ddof"], "eps": params["eps"], "lone_raw": False}
  return {
    "shaped": shaped,
    "advantage": alone(advantages.group_normalized_advantage)(shaped, arrays[-1], **knobs),
    "calibration_ok": alone(rewards.gr3_calibrated)(*arrays, alpha=params["alpha"]),
  }


def grlc(inputs, params):
  arrays, weight = _group(inputs, "rewards", "think_len", "answer_len"), params["lambda"]
  knobs = {"think_weight": weight, "answer_weight": weight}
  knobs |= {"bonus": params["beta"], "quantile": params["p"] / 100}
  return {"shaped": alone(rewards.grlc_reward)(*arrays, **knobs)}


def acoer_reward(inputs, params):
  correct, lengths = jnp.array(inputs["correct"]), jnp.array(inputs["lengths"])
  budgets = jnp.full(lengths.shape, params["budget"])
  knobs = {"k": params["k"], "limit": params["x_max"]}
  return {
    "g": rewards.acoer_score(lengths, budgets, **knobs),
    "reward": rewards.acoer_reward(correct, lengths, budgets, alpha=params["alpha"], **knobs),
  }


def format_length_reward(inputs, params):
  knobs = {"max_length": params["L_max"], "turn": params["p"]}
  scores = rewards.turning_score(jnp.array(inputs["length"]), **knobs)
  total = rewards.format_length_reward(jnp.array(inputs["format_ok"]), scores)
  return {"length_reward": scores, "reward_paper": total}


def longwriter_length_reward(inputs, params):
  length, *bounds = (jnp.array(x) for x in (inputs["length"], params["L_lower"], params["L_upper"]))
  return {"reward": rewards.length_range_reward(length, *bounds, max_length=params["L_max"])}


def autorule_reward(inputs, params):
  satisfied, base = jnp.array(inputs["rule_satisfied"]), jnp.array(inputs["rm_reward"])
  return {
    "rule_fraction": rewards.rule_fraction_reward(0 * base, satisfied),
    "reward": rewards.rule_fraction_reward(base, satisfied, **params),
  }


def multiplicative_reward(inputs, params):
  base, factors = jnp.array(inputs["base_reward"]), jnp.array(inputs["factors"], float)
  return {"reward": rewards.multiplicative_reward(base, factors)}


def mrt_progress(inputs, params):
  values, outcome = jnp.array(inputs["J"], float), jnp.array(inputs["outcome"])
  return {
    "progress": rewards.progress(values),
    "total_reward": rewards.progress_reward(outcome, values, alpha=params["alpha"]),
    "cumulative_regret": rewards.cumulative_regret(values, oracle=params["oracle"]),
  }


def mrt_regret_tokens(inputs, params):
  values, ends = jnp.array(inputs["J_after_episode"]), jnp.array(inputs["tokens_cumulative"])
  area, share = rewards.regret_area(values, ends, oracle=params["oracle"])
  return {"regret_area": area, "normalised": share}


SQUASH = {"tanh": jnp.tanh, "sigmoid": jax.nn.sigmoid, "none": None}


def lagrange_multiplier_update(inputs, params):
  raw, target = jnp.array(inputs["raw0"], float), jnp.array(params["threshold"], float)
  squash = SQUASH[params["squash"]]
  knobs = {"learning_rate": params["lr"], "momentum": params["momentum"]}
  knobs |= {"squash": squash, "max_norm": params["max_grad_norm"]}
  state, states = rewards.Multipliers(raw, jnp.zeros_like(raw)), []
  for returns in inputs["J"]:
    state = rewards.update_multipliers(state, jnp.array(returns, float), target, **knobs)
    states.append(state.raw)
  raw = jnp.stack(states)
  return {"raw": raw, "multiplier": squash(raw) if squash else raw}


def length_dual_controller(inputs, params):
  knobs = {"target": params["target"], "scale": params["scale"]}
  knobs |= {"step_size": params["lr"], "max_price": params["mu_max"]}
  prices = [jnp.array(params["mu0"], float)]
  for mean in inputs["mean_length"]:
    prices.append(rewards.dual_price(prices[-1], jnp.array(mean, float), **knobs))
  return {"mu": jnp.stack(prices[1:])}


FINISH = {"preferred": lambda long: "long" if long else "short"}
ADAPTERS = {
  f"rl_b/{f.__name__}": compiled(f, **FINISH)
  for f in [
    hbpo_reward,
    cosine_length_reward,
    cosine_clipped_short,
    ngram_repetition_dense,
    ngram_repetition_sparse,
    adactrl_reward,
    adaptive_long_short_reward,
    lcpo_exact,
    lcpo_max,
    thinkprune_reward,
    kimi_length_reward,
    shorter_better,
    alp_reward,
    efficient_reasoning_sigmoid,
    o1_pruner_reward,
    conciser_l_grpo,
    lcr1_length_reward,
    lcr1_compress_reward,
    gr3,
    grlc,
    acoer_reward,
    format_length_reward,
    longwriter_length_reward,
    autorule_reward,
    multiplicative_reward,
    mrt_progress,
    mrt_regret_tokens,
    lagrange_multiplier_update,
    length_dual_controller,
  ]
}

"""Adapters for the decoding part of tests/golden/eval_decode_merge.json, and one of rl_a.json."""

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.sampling import controls, mirostat, speculative, steering

probs = jax.nn.softmax


def sampling_filters(inputs, params):
  logits = jnp.array(inputs["logits"])
  top_k = {"k": params["top_k"]}
  top_p = {"p": params["top_p"]}
  tempered = logits / params["temperature"]
  chain = controls.chain(controls.top_k(**top_k), controls.top_p(**top_p))
  state = chain.init(jnp.zeros((1, 1), int), jnp.ones(1, int))
  return {
    "temperature": probs(tempered),
    "top_k": probs(controls.keep_top_k(logits, **top_k)),
    "top_p": probs(controls.keep_top_p(logits, **top_p)),
    "min_p": probs(controls.keep_min_p(logits, p=params["min_p"])),
    "chain_temperature_topk_topp": probs(chain.shape(state, tempered[None])[0]),
  }


def mirostat_v1(inputs, params):
  exponent = mirostat.zipf_exponent(jnp.array(inputs["top_probs"]), m=params["m"])
  k = mirostat.mirostat_k(exponent, params["mu"], vocab_size=params["vocab_size"])
  sampled = inputs["sampled_prob"]
  logits = jnp.log(jnp.array([sampled, 1 - sampled]))
  surprise = mirostat.surprise(logits, jnp.array(0))
  rates = {"tau": params["tau"], "eta": params["learning_rate"]}
  mu = mirostat.mirostat_update(params["mu"], surprise, **rates)
  found = {"s_hat": exponent, "k_formula": k, "k_used": k + 1}
  return found | {"surprise": surprise, "mu_next": mu}


def mirostat_v2(inputs, params):
  logits, token = jnp.log(jnp.array(inputs["probs_sorted"])), jnp.array(inputs["sampled_index"])
  mu = jnp.array(params["mu"], logits.dtype)
  kept = mirostat.keep_below_surprise(logits, mu)
  out = {"kept": jnp.isfinite(kept), "probs_after": probs(kept)}
  for name, used in (("original", logits), ("truncated", kept)):
    observed = mirostat.surprise(used, token)
    out[f"surprise_{name}"] = observed
    rates = {"tau": params["tau"], "eta": params["eta"]}
    out[f"mu_next_{name}"] = mirostat.mirostat_update(mu, observed, **rates)
  return out


def budget_forcing(inputs, params):
  params = dict(params)
  control = steering.budget_forcing(params.pop("end_of_thinking"), **params)
  state = control.init(jnp.zeros((1, 1), int), jnp.ones(1, int))
  stream, thinking = iter(inputs["model_stream"]), []
  while True:
    sampled = next(stream, 0) if state.forced[0] < 0 else 0
    state, token, forced = control.take(state, None, jnp.array([sampled]))
    if not state.thinking[0]:
      stop = "max" if forced[0] else "end"
      return {"thinking": thinking, "stop": stop, "append_final_answer": bool(forced[0])}
    thinking.append(int(token[0]))


def _end_of_thinking(logits, token, scale):
  """Logits after the multiplicative and after the additive control."""
  out = []
  for make in (steering.end_of_thinking_scale, steering.end_of_thinking_bias):
    control = make(token, scale=scale)
    state = control.init(jnp.zeros((1, 1), int), jnp.ones(1, int))
    out.append(control.shape(state, jnp.array(logits)[None])[0])
  return out


def end_of_thinking_scaling(inputs, params):
  scaled, biased = _end_of_thinking(inputs["logits"], params["eot_index"], params["scale"])
  return {"probs_multiplicative": probs(scaled), "probs_additive_log_scale": probs(biased)}


def ts_end_of_thinking(inputs, params):
  scaled, biased = _end_of_thinking(inputs["logits"], inputs["end_id"], 1 / params["tau"])
  return {
    "logits_divide": scaled,
    "probs_divide": probs(scaled),
    "logits_additive": biased,
    "probs_additive": probs(biased),
  }


def eos_ramp(inputs, params):
  n, logits = jnp.array(inputs["response_len"]), jnp.array(inputs["logits"])
  ramp = {"ramp_end": params["ramp_end"], "max_bias": params["max_bias"]}
  ramp |= {"hard_length": params["hard_len"], "hold": params["variant"] == "as_described"}
  control = steering.eos_ramp(params["eos_index"], **ramp)
  shaped = control.shape(n, jnp.broadcast_to(logits, (len(n), len(logits))))
  return {"bias": steering.ramp_bias(n, **ramp), "probs": probs(shaped)}


def rule_based_adapter(inputs, params):
  logits, prefix = jnp.array(inputs["logits"])[None], jnp.array(inputs["prefix_tokens"])[None]
  ramp = {"ramp_end": params["ramp_end"], "max_bias": params["max_bias"]}
  control = controls.chain(
    steering.eos_ramp(params["eos_index"], **ramp),
    steering.repeat_penalty(logits.shape[1], penalty=params["repeat_penalty"]),
    steering.token_bias({int(token): bias for token, bias in params["uniform_bias"].items()}),
  )
  _, *others = control.init(prefix, jnp.array([prefix.shape[1]]))
  shaped = control.shape((jnp.array([inputs["response_len"]]), *others), logits)
  return {"bias": (shaped - logits)[0], "probs": probs(shaped)[0]}


def specdec_stop(inputs, params):
  accept = jnp.array(inputs["p_accept"])
  return {
    "prob_any_rejected": speculative.rejection_probability(accept),
    "n_candidates": np.asarray(speculative.draft_length(accept, **params)),
  }


def multi_draft_acceptance(inputs, params):
  dists = jnp.array(inputs["p_target"]), jnp.array(inputs["q_draft"])
  drafts = params["n_drafts"]
  return {
    "optimal_iid": speculative.best_acceptance(*dists, drafts=drafts),
    "recursive_rejection_iid": speculative.recursive_acceptance(*dists, drafts=drafts),
    "greedy_draft": speculative.greedy_acceptance(*dists, drafts=drafts),
  }


ADAPTERS = {
  f"eval_decode_merge/{f.__name__}": f
  for f in (
    sampling_filters,
    mirostat_v1,
    mirostat_v2,
    budget_forcing,
    end_of_thinking_scaling,
    eos_ramp,
    rule_based_adapter,
    specdec_stop,
    multi_draft_acceptance,
  )
} | {"rl_a/ts_end_of_thinking": ts_end_of_thinking}

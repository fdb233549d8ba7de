"""Preference losses: a builder gives the losses of a case, `_graded` adds the gradients."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from lcrl.losses import preference as pref
from lcrl.losses.log_probs import score_tokens


def _graded(build, *, variables=("chosen_logps", "rejected_logps")):
  """Adapter of build(inputs, params) -> outputs with mean_loss, and its gradients."""

  def adapter(inputs, params):
    x = {
      k: jnp.asarray(v, bool if "mask" in k or "keep" in k else float) for k, v in inputs.items()
    }

    def mean_loss(policy):
      outputs = build(x | policy, params)
      outputs.setdefault("mean_loss", jnp.mean(outputs["per_example_loss"]))
      return outputs["mean_loss"], outputs

    grads, outputs = jax.grad(mean_loss, has_aux=True)({k: x[k] for k in variables})
    return outputs | {f"grad_{k}": g for k, g in grads.items()}

  return adapter


def _weights(x, weigh):
  chosen, rejected = x["chosen_mask"], x["rejected_mask"]
  return weigh(chosen, rejected), weigh(rejected, chosen)


def _ratios(x, weigh=pref.sum_weights, ref="ref"):
  chosen, rejected = _weights(x, weigh)
  return (
    pref.sequence_log_ratios(x["chosen_logps"], x[f"{ref}_chosen_logps"], chosen),
    pref.sequence_log_ratios(x["rejected_logps"], x[f"{ref}_rejected_logps"], rejected),
  )


def _log_probs(x, weigh):
  chosen, rejected = _weights(x, weigh)
  return (
    pref.sequence_log_probs(x["chosen_logps"], chosen),
    pref.sequence_log_probs(x["rejected_logps"], rejected),
  )


def _lengths(x):
  return x["chosen_mask"].sum(-1), x["rejected_mask"].sum(-1)


def _outputs(loss, chosen, rejected, beta, *, nll=None, **others):
  """The loss of the pairs, logged rewards, and the mean with an added likelihood term."""
  total = loss if nll is None else pref.combined_loss((1.0, loss), nll)
  return {
    "per_example_loss": loss,
    "mean_loss": jnp.mean(total),
    "chosen_rewards": pref.implicit_reward(chosen, beta=beta),
    "rejected_rewards": pref.implicit_reward(rejected, beta=beta),
    **others,
  }


def _nll(x, weigh=pref.batch_mean_weights):
  return pref.nll_loss(x["chosen_logps"], weigh(x["chosen_mask"]))


def _referenced(loss, *names, weigh=pref.sum_weights, **renamed):
  """Adapter of loss(u, v, **params), params taken by name or renamed."""

  def build(x, p):
    u, v = _ratios(x)
    knobs = {name: p[name] for name in names} | {ours: p[key] for ours, key in renamed.items()}
    return _outputs(loss(*_ratios(x, weigh), **knobs), u, v, p.get("beta", p.get("tau")))

  return _graded(build)


def _linked(link, **renamed):
  def build(x, p):
    u, v = _ratios(x)
    knobs = {ours: p[key] for ours, key in renamed.items()}
    return _outputs(
      pref.dpo_loss(u, v, beta=p["beta"], link=partial(link, **knobs)), u, v, p["beta"]
    )

  return _graded(build)


def r_dpo(x, p):
  u, v = _ratios(x)
  return _outputs(pref.r_dpo_loss(u, v, *_lengths(x), **p), u, v, p["beta"])


def ld_dpo(x, p):
  desensitized = _weights(x, partial(pref.desensitized_weights, alpha=p["ld_alpha"]))
  plain = _weights(x, pref.sum_weights)
  u, v = (
    pref.sequence_log_ratios(
      x[f"{side}_logps"], x[f"ref_{side}_logps"], w, None if p["apply_to_reference"] else ref
    )
    for side, w, ref in zip(("chosen", "rejected"), desensitized, plain, strict=True)
  )
  return _outputs(pref.dpo_loss(u, v, beta=p["beta"]), u, v, p["beta"])


def sampo(x, p):
  u, v = (
    pref.sequence_log_ratios(
      x[f"{side}_logps"],
      x[f"ref_{side}_logps"],
      pref.sum_weights(x[f"{side}_mask"] & x[f"{side}_keep"]),
      pref.sum_weights(x[f"{side}_mask"] & x[f"ref_{side}_keep"]),
    )
    for side in ("chosen", "rejected")
  )
  return _outputs(pref.dpo_loss(u, v, beta=p["beta"]), u, v, p["beta"])


def sppo(x, p):
  u, v = _ratios(x)
  chosen = x["p_win_chosen"] if "p_win_chosen" in x else x["p_chosen_beats_rejected"]
  rejected = x.get("p_win_rejected", 1 - chosen)
  return _outputs(pref.sppo_loss(u, v, chosen, rejected, beta=p["beta"]), u, v, p["beta"])


def dpo_nll(x, p):
  u, v = _ratios(x)
  dpo = pref.dpo_loss(u, v, beta=p["beta"])
  return _outputs(dpo, u, v, p["beta"], nll=(p["nll_coef"], _nll(x)))


def irpo(x, p):
  u, v = _ratios(x)
  dpo = pref.dpo_loss(u, v, beta=p["beta"])
  nll = _nll(x, pref.mean_weights)
  return _outputs(pref.combined_loss((1.0, dpo), (p["nll_coef"], nll)), u, v, p["beta"])


def longpo(x, p):
  u, v = _ratios(x, ref="short_ref")
  dpo = pref.dpo_loss(u, v, beta=p["beta"])
  nll = _nll(x, pref.mean_weights)
  return _outputs(pref.combined_loss((1.0, nll), (p["dpo_lambda"], dpo)), u, v, p["beta"])


def f_dpo(x, p):
  reward = {
    "forward_kl": pref.forward_kl_reward,
    "js_divergence": pref.js_reward,
    "alpha_divergence": partial(pref.alpha_divergence_reward, alpha=p.get("alpha")),
  }[p["f_divergence"]]
  u, v = _ratios(x)
  return _outputs(pref.dpo_loss(reward(u), reward(v), beta=p["beta"]), u, v, p["beta"])


def aot(x, p):
  u, v = _ratios(x)
  chosen, rejected = _log_probs(x, pref.sum_weights)
  ref_chosen, ref_rejected = _log_probs(
    {k.removeprefix("ref_"): v for k, v in x.items() if "mask" in k or "ref" in k}, pref.sum_weights
  )
  values = (chosen - rejected, ref_chosen - ref_rejected) if p["paired"] else (u, v)
  link = partial(pref.logistic_link, label_smoothing=p["label_smoothing"])
  return _outputs(pref.aot_loss(*values, beta=p["beta"], link=link), u, v, p["beta"])


def wpo(x, p):
  u, v = _ratios(x)
  weights = pref.wpo_weights(
    *(x[k] for k in ("chosen_logps", "rejected_logps")),
    *(x[f"log_sum_sq_probs_{side}"] for side in ("chosen", "rejected")),
    *(x[k] for k in ("chosen_mask", "rejected_mask")),
    most=p["clamp_max"],
  )
  loss = weights * pref.dpo_loss(u, v, beta=p["beta"])
  return _outputs(loss, u, v, p["beta"], pair_weight=weights)


def beta_dpo(x, p):
  u, v = _ratios(x)
  state = pref.Moments(x["gap_mean"][0], x["gap_std"][0])
  state = pref.updated_moments(state, u - v, decay=p["ema"])
  keep = pref.typical_pairs(jax.random.key(0), u - v, state, drop=p["rho"])
  knobs = {"beta": p["beta0"], "scale": p["a"], "least": p["beta_min"]}
  beta = pref.dynamic_beta(u - v, keep, state, **knobs)
  outputs = _outputs(keep * pref.dpo_loss(u, v, beta=beta), u, v, p["beta0"])
  return outputs | {"beta_used": beta, "new_gap_mean": state.mean, "new_gap_std": state.std}


def inpo(x, p):
  mixed = {
    f"mixed_{side}_logps": pref.inpo_reference(
      x[f"ref_{side}_logps"], x[f"prev_{side}_logps"], tau=p["tau"], eta=p["eta"]
    )
    for side in ("chosen", "rejected")
  }
  u, v = _ratios(x | mixed, ref="mixed")
  return {"per_example_loss": pref.ipo_loss(u, v, tau=p["eta"]), "h": u - v}


def _smoothed(p):
  if p.get("loss_type") == "hinge":
    return pref.hinge_link
  return partial(pref.logistic_link, label_smoothing=p["label_smoothing"])


def simpo(x, p):
  means = _log_probs(x, pref.mean_weights)
  margin = p["gamma_beta_ratio"] if "gamma_beta_ratio" in p else p["gamma"] / p["beta"]
  loss = pref.simpo_loss(*means, beta=p["beta"], margin=margin, link=_smoothed(p))
  weight = p.get("sft_weight", p.get("cpo_alpha"))
  return _outputs(loss, *means, p["beta"], nll=(weight, _nll(x)))


def alphapo(x, p):
  means = _log_probs(x, pref.mean_weights)
  rewards = [pref.power_reward(mean, alpha=p["alpha"]) for mean in means]
  margin = p["gamma"] / p["beta"]
  loss = pref.simpo_loss(*rewards, beta=p["beta"], margin=margin, link=_smoothed(p))
  return _outputs(loss, *rewards, p["beta"])


def cpo(x, p):
  sums = _log_probs(x, pref.sum_weights)
  loss = pref.cpo_loss(*sums, beta=p["beta"], link=_smoothed(p))
  return _outputs(loss, *sums, p["beta"], nll=(p["cpo_alpha"], _nll(x)))


def orpo(x, p):
  means = _log_probs(x, pref.mean_weights)
  nll = _nll(x)
  loss = pref.orpo_loss(*means, weight=p["lambda"])
  return _outputs(loss, *means, p["lambda"], nll=(1.0, nll), nll_loss=jnp.mean(nll))


def slic_hf(x, p):
  sums = _log_probs(x, pref.sum_weights)
  loss = pref.slic_loss(*sums, margin=p["delta"])
  nll = _nll(x, pref.sum_weights)
  return _outputs(pref.combined_loss((1.0, loss), (p["lambda"], nll)), *sums, 1.0)


def lmpo(x, p):
  means = _log_probs(x, pref.mean_weights)
  state = pref.Moments(x["margin_mean"][0], x["margin_std"][0])
  knobs = {"weight": p["lambda"], "power": p["k"], "decay": p["ema"]}
  term, state = pref.lmpo_margins(*means, *_lengths(x), state, **knobs)
  margin = p["gamma_beta_ratio"] + term / p["beta"]
  outputs = _outputs(pref.simpo_loss(*means, beta=p["beta"], margin=margin), *means, p["beta"])
  return outputs | {
    "margin_term": term,
    "new_margin_mean": state.mean,
    "new_margin_std": state.std,
  }


def kto(x, p):
  ratios = pref.sequence_log_ratios(x["logps"], x["ref_logps"], pref.sum_weights(x["mask"]))
  baseline = 0.0
  if p["loss_type"] == "kto":
    weights = pref.sum_weights(x["kl_mask"])
    kl_ratios = pref.sequence_log_ratios(x["kl_logps"], x["ref_kl_logps"], weights)
    baseline = pref.kto_baseline(kl_ratios)
  knobs = {k: p[k] for k in ("beta", "desirable_weight", "undesirable_weight")}
  return {
    "per_example_loss": pref.kto_loss(ratios, baseline, x["label"] == 1, **knobs),
    "rewards": pref.implicit_reward(ratios, beta=p["beta"]),
    "kl": baseline,
  }


def cdr_reward(inputs, params):
  del params
  args = [jnp.asarray(inputs[k]) for k in ("strong_logps", "weak_logps")]
  args.append(jnp.asarray(inputs["mask"], bool))
  return {
    "reward_sum": pref.cdr_reward(*args),
    "reward_token_mean": pref.cdr_reward(*args, weigh=pref.mean_weights),
  }


def chunked_token_logps(inputs, params):
  """Scale goes into hidden, a bias into one more column of hidden and row of head."""
  x = {k: jnp.asarray(v) for k, v in inputs.items()}
  variables = {k: x[k] for k in ("hidden", "weight", "bias") if k in x}

  def score(v, targets, extra=()):
    hidden, head = v["hidden"], v["weight"].T
    if "bias" in v:
      hidden = jnp.append(hidden, jnp.ones((len(hidden), 1)), axis=1)
      head = jnp.append(head, v["bias"][None], axis=0)
    hidden = params["logit_scale"] * hidden[:, *extra]
    hidden = jnp.broadcast_to(hidden, (*targets.shape, hidden.shape[-1]))
    knobs = {"temperature": params["temperature"], "soft_cap": params["logit_softcap"]}
    needs = ("entropy", "log_sum_sq")
    return score_tokens(hidden, head, targets, needs=needs, token_chunk=3, vocab_chunk=4, **knobs)

  scores, pull_back = jax.vjp(lambda v: score(v, x["targets"]), variables)
  cotangent = jax.tree.map(jnp.zeros_like, scores)
  fields = {"log_probs": x["cotangent_logps"], "entropy": x["cotangent_entropy"]}
  (grads,) = pull_back(type(scores)(**(vars(cotangent) | fields)))
  every = jnp.tile(jnp.arange(len(inputs["weight"])), (len(x["targets"]), 1))
  best = score(variables, every, extra=(None,)).log_probs.argmax(-1)
  return {
    "logps": scores.log_probs,
    "entropy": scores.entropy,
    "log_sum_sq_probs": scores.log_sum_sq,
    "is_top1": best == x["targets"],
    **{f"grad_{k}": g for k, g in grads.items()},
  }


ADAPTERS = {
  f"preference/{key}": adapter
  for key, adapter in {
    "dpo": _referenced(pref.dpo_loss, "beta"),
    "dpo_conservative": _linked(pref.logistic_link, label_smoothing="label_smoothing"),
    "dpo_robust": _linked(pref.robust_link, label_smoothing="label_smoothing"),
    "hinge": _linked(pref.hinge_link),
    "exo_pair": _linked(pref.exo_link, label_smoothing="label_smoothing"),
    "discopop": _linked(pref.discopop_link, temperature="tau"),
    "ipo": _referenced(pref.ipo_loss, "tau", weigh=pref.mean_weights),
    "ipo_sum": _referenced(pref.ipo_loss, "tau"),
    "ln_dpo": _referenced(pref.dpo_loss, "beta", weigh=pref.mean_weights),
    "nca_pair": _referenced(pref.nca_loss, "beta"),
    "bco_pair": _referenced(pref.bco_loss, "beta", shift="delta"),
    "apo_zero": _referenced(pref.apo_zero_loss, "beta"),
    "apo_down": _referenced(pref.apo_down_loss, "beta"),
    "dpop": _referenced(pref.dpop_loss, "beta", penalty="dpop_lambda"),
    "sppo_hard": _referenced(pref.sppo_hard_loss, "beta"),
    "sppo": _graded(sppo),
    "r_dpo": _graded(r_dpo),
    "ld_dpo": _graded(ld_dpo),
    "ld_dpo_policy_only": _graded(ld_dpo),
    "sampo": _graded(sampo),
    "dpo_nll": _graded(dpo_nll),
    "irpo": _graded(irpo),
    "longpo": _graded(longpo),
    "f_dpo": _graded(f_dpo),
    "f_dpo_alpha": _graded(f_dpo),
    "aot": _graded(aot),
    "aot_unpaired": _graded(aot),
    "wpo": _graded(wpo),
    "wpo_unclamped": _graded(wpo),
    "beta_dpo": _graded(beta_dpo),
    "inpo": _graded(inpo),
    "simpo": _graded(simpo),
    "cpo_simpo": _graded(simpo),
    "alphapo": _graded(alphapo),
    "cpo": _graded(cpo),
    "orpo": _graded(orpo),
    "slic_hf": _graded(slic_hf),
    "lmpo": _graded(lmpo),
    "kto": _graded(kto, variables=("logps",)),
    "cdr_reward": cdr_reward,
    "chunked_token_logps": chunked_token_logps,
  }.items()
}

"""Length methods of 2025 and 2026 that the first two lists do not have."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp

from lcrl import advantages, filters, losses, rewards
from lcrl.losses import policy, token_mean
from lcrl.losses.distillation import TEACHER, reverse_kl
from lcrl.registry import build
from lcrl.types import Batch, Budget, Rollouts, TokenScores
from tests.golden_adapters import rl_2026_modes
from tests.golden_adapters.groups import alone, blocks, compiled
from tests.rollouts import random_rollouts


def _group(inputs, *names):
  """Arrays of one group of rollouts, and that all of them are valid."""
  arrays = [jnp.array(inputs[name]) for name in names]
  return *arrays, jnp.ones(arrays[0].shape, bool)


def gdpo(inputs, params):
  components = jnp.stack([blocks(rows, params["group"]) for rows in inputs["components"]])
  lengths, keep = blocks(inputs["lengths"], params["group"]), jnp.ones(components.shape[1:], bool)
  knobs = {"weights": params["weights"], "eps": params["eps"]}
  tokens = advantages.gdpo_advantage(components, keep, lengths, **knobs)
  rollouts = advantages.gdpo_advantage(components, keep, **knobs)
  return {"by_tokens": tokens.reshape(-1), "by_rollouts": rollouts.reshape(-1)}


def budget_relative(inputs, params):
  scores = jnp.array(inputs["scores"])[None]
  keep = jnp.ones(scores.shape[:2], bool)
  return {"advantages": advantages.budget_advantages(scores, keep, **params)[0]}


def short_rl(inputs, params):
  r, correct, lengths, valid = _group(inputs, "rewards", "correct", "lengths")
  knobs = {name: params[name] for name in ("slack", "tolerance")}
  best = jnp.array(params["best"])
  paid = rewards.short_rl_reward(r[None], correct[None], lengths[None], best, valid[None], **knobs)
  return {"reward": paid[0]}


def leash(inputs, params):
  price, target = jnp.array(params["start"], float), params["target"]
  knobs = {name: params[name] for name in ("step_size", "max_price")}
  paid, prices = [], []
  for r, lengths in zip(inputs["rewards"], inputs["lengths"], strict=True):
    r, lengths = jnp.array(r), jnp.array(lengths)
    paid.append(rewards.leash_reward(r, lengths, price, target=target))
    price = rewards.dual_price(price, jnp.mean(lengths), target=target, scale=target, **knobs)
    prices.append(price)
  return {"reward": jnp.stack(paid), "price": jnp.stack(prices)}


def serial_decay(inputs, params):
  correct, exit_at, valid = _group(inputs, "correct", "exit_at")
  return {"reward": alone(rewards.serial_decay_reward)(correct, correct, exit_at, valid, **params)}


def on_policy_sft(inputs, params):
  """The stages of configs/on_policy_sft.py on one group."""
  log_probs = jnp.array(inputs["log_probs"])[None]
  lengths, correct, truncated = (
    jnp.array(inputs[name])[None] for name in ("lengths", "correct", "truncated")
  )
  limit, at = jnp.full(lengths.shape, params["limit"]), jnp.arange(log_probs.shape[-1])
  mask, none = at[None, None] < lengths[..., None], jnp.zeros(log_probs.shape)
  r = Rollouts(
    tokens=none.astype(int), mask=mask, sampler_log_probs=none, lengths=lengths,
    truncated=truncated > 0, scores=1.0 * correct, correct=correct > 0, outcome=1 - correct,
    valid=correct >= 0, prompt_ids=jnp.zeros(1, int), difficulty=jnp.zeros(1, int),
    budget=Budget(limit, limit, 0 * limit), signals={},
  )  # fmt: skip
  paid, _ = rewards.truncation().apply((), r)
  keep, _ = filters.positive_reward().apply((), paid, r)
  worth, _ = advantages.raw().apply((), paid, keep, r)
  batch = Batch(r, paid, keep, worth, token_mean(mask, keep))
  loss = policy.cispo(lower=1.0, upper=1.0)
  value, gradient = jax.value_and_grad(lambda x: loss.apply((), TokenScores(x), batch)[0])(
    log_probs
  )
  return {"keep": keep[0], "loss": value, "gradient": gradient[0]}


def smart_thinker(inputs, params):
  correct, lengths, valid = _group(inputs, "correct", "lengths")
  return {
    "length": alone(rewards.smart_thinker_length)(correct, lengths, valid),
    "reward": alone(rewards.smart_thinker_reward)(correct, correct, lengths, valid),
  }


def linear_penalty(inputs, params):
  reward = partial(alone(rewards.linear_penalty_reward), *_group(inputs, "rewards", "lengths"))
  by_run = partial(reward, weight=params["old_weight"], scale=params["scale"])
  by_group = reward(weight=params["weight"])
  return {
    "reward": by_group,
    "advantage": by_group - jnp.mean(by_group),
    "by_run": by_run(),
    "gated": by_run(gated=True),
  }


def grpo_lead(inputs, params):
  arrays = _group(inputs, "rewards", "correct", "lengths")
  return {"reward": alone(rewards.grpo_lead_reward)(*arrays, **params)}


def difficulty_weighted(inputs, params):
  arrays = _group(inputs, "rewards", "correct")
  return {"advantage": alone(advantages.difficulty_weighted_advantage)(*arrays)}


def a_dlp(inputs, params):
  knobs = {name: params[name] for name in ("reference", "step_size")}
  start, prices = jnp.array(params["start"], float), []
  for accuracy in inputs["accuracy"]:
    prices.append(rewards.accuracy_price([start, *prices][-1], jnp.array(accuracy), **knobs))
  correct, lengths = jnp.array(inputs["correct"]), jnp.array(inputs["lengths"])
  paid = rewards.priced_reward(correct, lengths, start, scale=1.0)
  return {"price": jnp.stack(prices), "reward": paid}


def toggle(inputs, params):
  r, lengths, valid = _group(inputs, "rewards", "lengths")
  budget = alone(rewards.right_length_quantile)(r > 0, lengths, valid, quantile=params["quantile"])
  knobs = {"threshold": params["threshold"]}
  reward = alone(rewards.toggle_reward)(r, lengths, budget, valid, **knobs)
  return {"budget": jnp.minimum(budget, 1e308), "reward": reward}


def length_suite(inputs, params):
  correct, lengths, valid = _group(inputs, "correct", "lengths")
  reward = partial(alone(rewards.length_suite_reward), correct, correct, lengths, valid)
  return {"reward": reward(**params)}


def profiled_penalty(inputs, params):
  profile = _group(inputs, "profiled_correct", "profiled_lengths")
  knobs = {name: params[name] for name in ("deviations", "min_right")}
  limit = jnp.minimum(alone(rewards.profiled_limit)(*profile, **knobs), 1e308)
  r, correct, lengths, _ = _group(inputs, "rewards", "correct", "lengths")
  limits = jnp.full(lengths.shape, limit)
  paid = rewards.profiled_penalty_reward(r, correct, lengths, limits, penalty=params["penalty"])
  return {"limit": limit, "reward": paid}


def distillation(inputs, params):
  log_probs, teacher = (jnp.array(inputs[name])[None, None] for name in inputs)
  term = losses.teacher_advantage(log_probs, teacher, mask := log_probs < 0, limit=params["limit"])
  r = random_rollouts(prompts=1, group=1, length=log_probs.size)
  r = dataclasses.replace(r, mask=mask, signals={TEACHER: teacher})
  keep = mask.any(-1)
  batch = Batch(r, keep, keep, keep * params["advantage"], losses.token_mean(mask, keep))
  distill = reverse_kl(coefficient=params["coefficient"], limit=params["limit"])
  stage, scores = losses.clipped_surrogate(distill=distill), TokenScores(log_probs)
  loss = stage.apply((), scores, batch)[0]
  fractions = stage.fractions((), scores, batch)
  del fractions["clip_fraction"]
  return {"advantage": term[0, 0], "loss": loss, **fractions}


def effort(inputs, params):
  made = {name: build(rewards, params[name], field=name) for name in ("reference", "term")}
  stage = rewards.effort(**params | made)
  state, paid = stage.init(), []
  for step in inputs["steps"]:
    correct, lengths, levels = (jnp.array(step[name]) for name in ("correct", "lengths", "levels"))
    r = random_rollouts(prompts=len(correct), group=correct.shape[1])
    budget = dataclasses.replace(r.budget, level=levels)
    r = dataclasses.replace(r, correct=correct > 0, lengths=lengths, budget=budget)
    given, state = stage.apply(state, dataclasses.replace(r, truncated=lengths < 0))
    paid.append(given)
  return {"rewards": jnp.stack(paid)}


ADAPTERS = rl_2026_modes.ADAPTERS | {
  f"rl_2026/{f.__name__}": compiled(f)
  for f in [
    gdpo,
    budget_relative,
    short_rl,
    leash,
    serial_decay,
    on_policy_sft,
    smart_thinker,
    linear_penalty,
    grpo_lead,
    difficulty_weighted,
    a_dlp,
    toggle,
    length_suite,
    profiled_penalty,
    distillation,
    effort,
  ]
}

"""Length methods of 2025 and 2026 that the first two lists do not have."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax.numpy as jnp

from lcrl import advantages, losses, rewards
from lcrl.losses.distillation import TEACHER, reverse_kl
from lcrl.types import Batch, TokenScores
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


ADAPTERS = rl_2026_modes.ADAPTERS | {
  f"rl_2026/{f.__name__}": compiled(f)
  for f in [
    gdpo,
    smart_thinker,
    linear_penalty,
    grpo_lead,
    difficulty_weighted,
    a_dlp,
    toggle,
    length_suite,
    profiled_penalty,
    distillation,
  ]
}

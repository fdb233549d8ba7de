"""Modes, levels and stages of thinking: DECS, AdaptThink, Thinkless, LAPO, AALC, ThinkDial."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import jax.numpy as jnp

from lcrl import advantages, budgets, filters, losses, rewards
from lcrl.types import Budget
from tests.golden_adapters.groups import alone, compiled


def _arrays(inputs, *names):
  return [jnp.array(inputs[name]) for name in names]


def decs(inputs, params):
  arrays = _arrays(inputs, "correct", "lengths", "needed", "think_lengths")
  reward = advantages.decoupled_reward(*arrays, **params)
  advantage = alone(advantages.place_normalized_advantage)(reward, jnp.ones(len(reward), bool))
  there = jnp.arange(params["places"])[None] < arrays[1][:, None]
  return {"reward": reward, "advantage": jnp.where(there, advantage, 0.0)}


def easy_share(inputs, params):
  stage = filters.easy_share(**params)
  state, kept, shares = stage.init(), [], []
  for step in inputs["steps"]:
    correct, needed, think = _arrays(step, "correct", "needed", "think_lengths")
    r = SimpleNamespace(correct=correct > 0, valid=jnp.ones(correct.shape, bool))
    r.signals = {"needed": needed, "think_length": think}
    keep, state = stage.apply(state, None, r)
    kept.append(keep.any(-1))
    shares.append(state.share)
  return {"keep": jnp.stack(kept), "share": jnp.stack(shares)}


def adapt_think(inputs, params):
  correct, log_probs, old = _arrays(inputs, "correct", "log_probs", "old_log_probs")
  skips, mask = (x > 0 for x in _arrays(inputs, "skips", "mask"))
  reference = jnp.array(inputs["reference"])
  reward = alone(rewards.adapt_think_reward)(correct, skips, reference, bonus=params["bonus"])
  drawn = mask & (jnp.cumsum(mask, -1) > 1)
  old = losses.opening_log_probs(old, mask, drawn, jnp.full(reward.shape, 0.5))
  clip = {"clip_low": params["clip"], "clip_high": params["clip"]}
  loss = partial(losses.clipped_surrogate_loss, ratio=losses.sequence_ratio, **clip)
  weights = losses.sequence_mean(mask, jnp.ones(reward.shape, bool))
  return {"reward": reward, "loss": jnp.sum(weights * loss(log_probs, old, reward, mask))}


def thinkless(inputs, params):
  arrays = _arrays(inputs, "correct", "tags", "log_probs", "old_log_probs")
  (correct, tags, log_probs, old), mask = arrays, jnp.array(inputs["mask"]) > 0
  reward, keep = rewards.thinkless_reward(correct, tags), jnp.ones(correct.shape, bool)
  advantage = alone(advantages.group_centered_advantage)(reward, keep)
  loss = losses.clipped_surrogate_loss(log_probs, old, advantage, mask)
  weigh = partial(losses.control_token, mask, keep, **params)
  return {
    "reward": reward,
    "loss": jnp.sum(weigh() * loss),
    "loss_by_tokens": jnp.sum(weigh(per_sequence=False) * loss),
  }


def lapo(inputs, params):
  correct, lengths = _arrays(inputs, "correct", "lengths")
  discovery = partial(
    alone(rewards.right_range_reward), correct, correct, lengths, jnp.ones(correct.shape, bool)
  )
  aimed = jnp.full(lengths.shape, params["target"])
  stage = budgets.right_median(rows=2, fallback=4096, shown_from=params["shown_from"])
  state, targets, ids = stage.init(), [], jnp.array([1])
  for step, (right, tokens) in enumerate(inputs["steps"]):
    ask = partial(stage.apply, step=jnp.array(step), key=None, group_size=len(right))
    asked: Budget = ask(state, ids)[0]
    flags = jnp.array([right]) > 0
    r = SimpleNamespace(correct=flags, valid=jnp.ones_like(flags), lengths=jnp.array([tokens]))
    r.budget, r.prompt_ids = asked, ids
    state = stage.learn(state, r)
    targets.append(ask(state, ids)[0].target[0, 0])
  return {
    "discovery": discovery(lone=False),
    "discovery_of_the_paper": discovery(),
    "internalization": rewards.bell_length_reward(
      correct, correct, lengths, aimed, sigma=params["sigma"]
    ),
    "targets": jnp.stack(targets),
  }


def aalc(inputs, params):
  correct, lengths, accuracy = _arrays(inputs, "correct", "lengths", "accuracy")
  knobs = {name: params[name] for name in ("max_length", "alpha", "beta")}
  stage = rewards.aalc(max_length=params["max_length"], decay=params["decay"])
  state, targets = stage.init(), []
  none = jnp.zeros((1, 1), bool)
  for accuracy_seen in inputs["accuracies"]:
    # Twenty answers of which so many are right.
    seen = jnp.arange(20)[None] < round(20 * accuracy_seen)
    state = stage.observe(state, SimpleNamespace(correct=seen, valid=jnp.ones_like(seen)))
    targets.append(stage.numbers(state)["aalc/target"])
    state = stage.apply(state, SimpleNamespace(correct=none, lengths=none + 1))[1]
  return {
    "reward": rewards.aalc_reward(correct, lengths, accuracy, **knobs),
    "targets": jnp.stack(targets),
  }


def think_dial(inputs, params):
  correct, lengths, leaks = _arrays(inputs, "correct", "lengths", "leaks")
  levels, valid = jnp.full(lengths.shape, inputs["level"]), jnp.ones(lengths.shape, bool)
  base = rewards.leak_penalty_reward(correct, leaks)
  dial = partial(alone(rewards.level_shortness_reward), weights=params["weights"])
  return {"reward": dial(base, correct, lengths, levels, valid)}


ADAPTERS = {
  f"rl_2026/{f.__name__}": compiled(f)
  for f in [decs, easy_share, adapt_think, thinkless, lapo, aalc, think_dial]
}

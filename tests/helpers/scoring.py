"""A small policy, losses, and batches to score."""

import dataclasses

import jax
import jax.numpy as jnp

from lcrl import advantages, budgets, filters, policies, recipes, rewards
from lcrl.losses import policy as losses
from lcrl.losses.weights import token_mean
from lcrl.training.step import shape
from lcrl.types import Recipe
from tests.rollouts import random_rollouts

POLICY = policies.make(
  policies.tiny(vocab_size=16, hidden_size=16, head_dim=4, layers=2, mlp_size=16)
)
PARAMS = POLICY.init(jax.random.key(1))
LOSSES = {
  "surrogate": lambda: losses.clipped_surrogate(clip_low=0.2, clip_high=0.28),
  "drpo": lambda: losses.drpo(max_length=9.0, delta=-1.0, beta=1.0),  # outside the trust region
}


def make_recipe(loss):
  return Recipe(
    budget=budgets.fixed(target=9),
    reward=rewards.step_bonus(alpha=0.5),
    filter=filters.keep_all(),
    advantage=advantages.group_normalized(),
    loss=loss,
  )


def make_batch(recipe, weigh=token_mean, **sizes):
  batch, _ = shape(
    recipe,
    recipes.init(recipe),
    random_rollouts(**sizes),
    weigh=weigh,
    step=jnp.int32(0),
    key=jax.random.key(0),
  )
  return dataclasses.replace(batch, old_log_probs=batch.rollouts.sampler_log_probs)


def with_prompts(batch):
  """Groups that begin alike, with 3, 3, 5 and no tokens."""
  first = batch.rollouts.tokens[:, :1]
  alike = jnp.array([3, 3, 5, 0])[:, None, None] > jnp.arange(12)[None, None]
  tokens = jnp.where(alike, first, batch.rollouts.tokens)
  return dataclasses.replace(batch, rollouts=dataclasses.replace(batch.rollouts, tokens=tokens))

"""Rollouts of given verdicts and lengths."""

import dataclasses

import jax.numpy as jnp

from tests.rollouts import random_rollouts


def rollouts(correct, lengths, *, target=8, prompt_ids=None, **fields):
  correct, lengths = jnp.array(correct, bool), jnp.array(lengths)
  r = random_rollouts(prompts=correct.shape[0], group=correct.shape[1])
  budget = dataclasses.replace(r.budget, target=jnp.full(correct.shape, target))
  ids = r.prompt_ids if prompt_ids is None else jnp.array(prompt_ids)
  fields = dict(truncated=jnp.zeros(correct.shape, bool)) | fields
  fields |= dict(correct=correct, lengths=lengths, budget=budget, prompt_ids=ids)
  return dataclasses.replace(r, **fields)

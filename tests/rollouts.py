"""Rollouts of made-up numbers, for tests of what comes after sampling."""

from concurrent.futures import Future

import jax
import jax.numpy as jnp

from lcrl.types import Budget, Rollouts


def random_rollouts(seed=0, *, prompts=4, group=4, length=12, prompt_length=3, vocab=16):
  """Rows of `prompt_length` prompt tokens and at least one sampled token each."""
  keys = jax.random.split(jax.random.key(seed), 4)
  shape = (prompts, group)
  room = length - prompt_length
  lengths = jax.random.randint(keys[0], shape, 1, room + 1)
  place = jnp.arange(length)[None, None]
  mask = (place >= prompt_length) & (place < prompt_length + lengths[..., None])
  correct = jax.random.bernoulli(keys[1], 0.5, shape)
  full = lambda value: jnp.full(shape, value, jnp.int32)
  return Rollouts(
    tokens=jax.random.randint(keys[2], (*shape, length), 0, vocab),
    mask=mask,
    sampler_log_probs=jnp.where(mask, -jax.random.uniform(keys[3], (*shape, length)), 0.0),
    lengths=lengths,
    truncated=lengths == room,
    scores=correct.astype(jnp.float32),
    correct=correct,
    outcome=jnp.where(correct, 0, 1).astype(jnp.int8),
    valid=jnp.ones(shape, bool),
    prompt_ids=jnp.arange(prompts, dtype=jnp.int32),
    difficulty=jnp.arange(prompts, dtype=jnp.int32) % 3,
    budget=Budget(full(room), full(room), full(0)),
    signals={},
  )


class AtOnce:
  """A verifier that has its verdicts when it is asked: `verify` is the subclass's."""

  def submit(self, items):
    found = Future()
    found.set_result(self.verify(items))
    return found

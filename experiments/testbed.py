"""The arithmetic testbed as one program: sample, verify, shape and update inside a `scan`.

The functions are those of the host's loop (`lcrl.training`), keys included, so both paths give the
same tokens and the same updates. Here no step returns to the host, and a whole study can be
vmapped over seeds and coefficients. K steps, B prompts, G rollouts of each, T positions of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lcrl import recipes
from lcrl.data.rows import Rows
from lcrl.losses.weights import token_mean
from lcrl.policies import Policy
from lcrl.sampling.core import row_keys, sample
from lcrl.sampling.programs import assemble
from lcrl.tasks.arithmetic import answer, demonstration, draw, prompt, rows, verify
from lcrl.tasks.sums import ZERO, Sums
from lcrl.training.keys import step_key
from lcrl.training.layout import first_state
from lcrl.training.scorer import make_scorer
from lcrl.training.step import Weigh, shape, update
from lcrl.types import Batch, Budget, Outcome, Recipe, Rollouts, Stage, TrainState

PyTree = Any
# Params and sampled rollouts -> the rollouts to shape, and their log-probs or None.
Read = Callable[[PyTree, Rollouts], tuple[Rollouts, jax.Array | None]]


class Demonstrations(NamedTuple):
  """Rows for supervised steps."""

  tokens: jax.Array  # [B, T] int32
  mask: jax.Array  # [B, T] bool, the response


class Curve(NamedTuple):
  """Metrics of a scan of training steps, [K] each."""

  accuracy: jax.Array
  tokens: jax.Array
  reward: jax.Array


def curve(batch: Batch) -> Curve:
  """The metrics of one step."""
  rollouts = batch.rollouts
  return Curve(rollouts.correct.mean(), rollouts.lengths.mean(), batch.rewards.mean())


def demonstrations(
  sums: Sums,
  key: jax.Array,
  *,
  batch: int,
  recheck: float | Sequence[float],
  sizes: Sequence[float] | Sequence[Sequence[float]],
  levels: int = 0,
) -> Demonstrations:
  """Fresh training problems with demonstrations (`lcrl.tasks.arithmetic.demonstration`).

  With `levels` > 0 a random digit below it precedes every prompt. It has no meaning yet, unless
  `recheck` and `sizes` are given for each level.
  """
  many = max(levels, 1)
  rechecks = np.broadcast_to(np.asarray(recheck, np.float32), many)
  sizes_of = np.broadcast_to(np.asarray(sizes, np.float32), (many, sums.per_step))

  def one(key):
    problem_key, key = jax.random.split(key)
    problem = draw(sums, problem_key)
    question, start = prompt(sums, problem)
    level = jnp.zeros(1, jnp.int32)
    if levels:
      key, level_key = jax.random.split(key)
      level = jax.random.randint(level_key, (1,), 0, levels)
      question = jnp.append(ZERO + level, question)
      start = start + 1
    way = {"recheck": jnp.asarray(rechecks)[level[0]], "sizes": jnp.asarray(sizes_of)[level[0]]}
    working, length = demonstration(sums, key, problem, **way)
    position = jnp.arange(question.size + working.size)
    mask = (position >= start) & (position < start + length)
    working = working.at[position - start].get(mode="clip")
    question = jnp.pad(question, (0, working.size - question.size))
    return Demonstrations(jnp.where(mask, working, question), mask)

  return jax.vmap(one)(jax.random.split(key, batch))


def imitate(
  policy: Policy,
  optimizer: optax.GradientTransformation,
  start: tuple[PyTree, PyTree],
  keys: jax.Array,
  *,
  sums: Sums,
  batch: int,
  recheck: float | Sequence[float],
  sizes: Sequence[float] | Sequence[Sequence[float]],
  levels: int = 0,
) -> tuple[tuple[PyTree, PyTree], jax.Array]:
  """Supervised steps, one a key: (params, optimizer state) -> the same, and losses [K]."""
  score = make_scorer(policy)

  def step(carry, key):
    params, opt_state = carry
    examples = demonstrations(sums, key, batch=batch, recheck=recheck, sizes=sizes, levels=levels)
    weights = token_mean(examples.mask, jnp.ones(batch, bool))

    def loss(params):
      return -jnp.sum(weights * score(params, examples).log_probs)  # type: ignore[arg-type]

    value, grads = jax.value_and_grad(loss)(params)
    changes, opt_state = optimizer.update(grads, opt_state, params)
    return (optax.apply_updates(params, changes), opt_state), value

  return jax.lax.scan(step, start, keys)


def roll_out(
  policy: Policy,
  params: PyTree,
  prompt_ids: jax.Array,
  index: jax.Array,
  budget: Budget,
  key: jax.Array,
  *,
  sums: Sums,
  max_tokens: int,
  data_seed: int | jax.Array = 0,
  held_out: bool = False,
  shows_level: bool = False,
) -> Rollouts:
  """Verified rollouts of rows `prompt_ids` [B] of the data set, at `index` [B] in the stream.

  With `shows_level` the digit `budget.level` precedes the prompt and tells the budget.
  """
  problems = rows(sums, prompt_ids, seed=data_seed, held_out=held_out)
  group = budget.cap.shape[1]
  spread = lambda x: jnp.repeat(x[:, None], group, axis=1)
  tokens, lengths = map(spread, jax.vmap(partial(prompt, sums))(problems))
  if shows_level:
    tokens = jnp.concatenate([ZERO + budget.level[..., None], tokens], axis=-1)
    lengths = lengths + 1
  prompts = Rows(
    tokens=tokens,
    lengths=lengths,
    forced=jnp.zeros_like(budget.cap),
    index=index,
    prompt_ids=prompt_ids,
    difficulty=problems.difficulty,
  )
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  keys = row_keys(key, index, group)
  samples = sample(
    policy,
    params,
    *map(flat, (prompts.tokens, prompts.lengths, budget.cap, keys)),
    max_tokens=max_tokens,
    end_ids=sums.end_ids,
    group=1 if shows_level else group,
  )
  answers = spread(jax.vmap(partial(answer, sums))(problems))
  samples = jax.tree.map(lambda x: x.reshape(*answers.shape, *x.shape[1:]), samples)
  return verified(assemble(prompts, budget, samples, pad_id=sums.pad_id), answers, sums=sums)


def verified(rollouts: Rollouts, answers: jax.Array, *, sums: Sums) -> Rollouts:
  """The rollouts with the verifier's verdicts; `answers` [B, G] are the references."""
  tokens, lengths = responses(rollouts)
  outcome = jax.vmap(jax.vmap(partial(verify, sums)))(tokens, lengths, answers)
  correct = outcome == Outcome.OK
  return dataclasses.replace(
    rollouts, scores=correct.astype(jnp.float32), correct=correct, outcome=outcome
  )


def responses(rollouts: Rollouts) -> tuple[jax.Array, jax.Array]:
  """Sampled tokens [B, G, T], left-aligned, and their number [B, G]."""
  start = jnp.argmax(rollouts.mask, axis=-1, keepdims=True)
  at = start + jax.lax.broadcasted_iota(jnp.int32, (1, 1, rollouts.tokens.shape[-1]), 2)
  last = rollouts.tokens.shape[-1] - 1
  return jnp.take_along_axis(rollouts.tokens, jnp.minimum(at, last), axis=-1), rollouts.lengths


def initial(
  params: PyTree, recipe: Recipe[Stage], optimizer: optax.GradientTransformation
) -> TrainState:
  """The state before the first step of `reinforce`."""
  return first_state(params, optimizer, recipes.init(recipe), counted="prompts")


def reinforce(
  policy: Policy,
  recipe: Recipe[Stage],
  optimizer: optax.GradientTransformation,
  state: TrainState,
  prompt_ids: jax.Array,
  *,
  sums: Sums,
  group_size: int,
  max_tokens: int,
  seed: int | jax.Array,
  data_seed: int | jax.Array = 0,
  weigh: Weigh = token_mean,
  updates: int = 1,
  read: Read = lambda params, rollouts: (rollouts, None),
  watch: Callable[[Batch], Any] = curve,
  shows_level: bool = False,
) -> tuple[TrainState, Any]:
  """Steps of reinforcement learning, one a row of `prompt_ids` [K, B].

  The stages of `recipe` may hold traced coefficients, and the seeds may be traced. `read` may add
  signals and revise the rollouts; `watch` gives the metrics of a step's batch.
  """
  score = make_scorer(policy)

  def step(state: TrainState, ids):
    key = step_key(seed, state.step)
    index = state.position + jnp.arange(ids.size)
    budget, _ = recipe.budget.apply(
      state.recipe.budget, ids, step=state.step, key=key, group_size=group_size
    )
    rollouts = roll_out(
      policy,
      state.params,
      ids,
      index,
      budget,
      key,
      sums=sums,
      max_tokens=max_tokens,
      data_seed=data_seed,
      shows_level=shows_level,
    )
    sampled = rollouts.lengths.sum()
    rollouts, old_log_probs = read(state.params, rollouts)
    batch, states = shape(recipe, state.recipe, rollouts, weigh=weigh, step=state.step, key=key)
    batch = dataclasses.replace(batch, old_log_probs=old_log_probs)
    state = dataclasses.replace(
      state,
      recipe=states,
      position=state.position + ids.size,
      counters={
        "prompts": state.counters["prompts"] + ids.size,
        "tokens": state.counters["tokens"] + sampled,
      },
    )
    state, _ = update(
      state,
      batch,
      score=score,
      recipe=recipe,
      weigh=weigh,
      optimizer=optimizer,
      updates=updates,
    )
    return state, watch(batch)

  return jax.lax.scan(step, state, prompt_ids)

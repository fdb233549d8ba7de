"""Sampling on the device: rows wait in a queue, slots decode them token by token.

    queue   row 0 .. 5 started | 6  7  8  9 wait          `waiting` is 6, the first row that waits
                                 |  |  refill: prefill 2 rows, once 2 slots are free
                                 v  v
    slots   [row 3] [row R, free] [row 5] [row R, free]   S slots; each writes one token a step
                |                     |
    rows    row 3: a b c _ _      row 5: a _ _ _ _        [R, N] tokens, masks, log-probs

A row leaves its slot at an end token or at its cap. With as many slots as rows (`refill` is 0) all
rows start together and no row waits. A slot's keys lie in two places: those of its prompt, which a
group may share, and its own, from the last prompt token on.

Everything here is pure and may be jitted, scanned and vmapped. S slots, R rows, P prompt positions,
N response positions, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.policies.block import head_logits
from lcrl.policies.cache import Prompts
from lcrl.sampling import triton_draw
from lcrl.sampling.draw import draw, log_probs, tile
from lcrl.sampling.jobs import Job, PyTree, plan


class Samples(NamedTuple):
  """Responses, left-aligned; 0 and False behind their ends."""

  tokens: jax.Array  # [R, N] int32, the end token included
  mask: jax.Array  # [R, N] bool, tokens that the policy chose (a control may force others)
  log_probs: jax.Array  # [R, N] float32, 0 where masked
  lengths: jax.Array  # [R] int32, tokens written
  truncated: jax.Array  # [R] bool, reached the cap without an end token


class Slots(NamedTuple):
  """The carry of the loop. A slot whose row is R is free, and its results are dropped."""

  row: jax.Array  # [S] int32
  token: jax.Array  # [S] int32, the last one of the row, not in the cache yet
  position: jax.Array  # [S] int32, where that token stands
  steps: jax.Array  # [S] int32, response tokens written
  control: PyTree  # leaves [S, ...]
  prompts: Prompts  # one a slot; one a group where all rows start together
  cache: PyTree  # leaves [S, ...], of the last prompt token and the response
  waiting: jax.Array  # [] int32, the first row that still waits
  iteration: jax.Array  # [] int32, of the loop; every slot writes one token in each
  tokens: jax.Array  # [R, N] int32, -1 where nothing is written
  mask: jax.Array  # [R, N] bool
  log_probs: jax.Array  # [R, N] float32


def row_keys(key: jax.Array, index: jax.Array, group_size: int) -> jax.Array:
  """A key per rollout from its place in the data stream: fold_in(fold_in(key, index[b]), g).

  >>> row_keys(jax.random.key(0), jnp.array([7, 9]), 4).shape
  (2, 4)
  """
  fold = jax.random.fold_in
  samples = jnp.arange(group_size)
  return jax.vmap(lambda b: jax.vmap(lambda g: fold(fold(key, b), g))(samples))(index)


def sample(*args, **options) -> Samples:
  """Samples a response to every row, with the arguments of `plan`.

  Token n of a row is drawn from softmax(logits / temperature) with Gumbel noise from fold_in(the
  row's key, n), so what a row says depends neither on its neighbours nor on its slot. `log_probs`
  are those of softmax(logits / temperature), before any control; at temperature 0, which takes the
  argmax, those of softmax(logits).
  """
  return complete(plan(*args, **options))


def complete(job: Job) -> Samples:
  """Decodes every row to its end."""
  s = start(job)
  for length in job.cache_lengths:
    s = advance(job, s._replace(cache=grow(s.cache, length)), len(job.queue.caps))
  return samples(s, job.end_ids)


def start(job: Job) -> Slots:
  """Slots before the first token: one for every row, or all free while all rows wait."""
  return _empty_slots(job) if job.refill else _all_rows_in_slots(job)


def advance(job: Job, s: Slots, until: jax.Array | int) -> Slots:
  """Writes tokens until `until` rows are finished, or until the cache is full."""
  if not job.refill:
    return _decode(job, s, until)

  def refill_and_decode(s):
    s = jax.lax.while_loop(lambda s: _any(~_occupied(job, s)), lambda s: _refill(job, s), s)
    return _decode(job, s, until)

  return jax.lax.while_loop(lambda s: _any(_finished_rows(s) < until), refill_and_decode, s)


def finished(s: Slots) -> jax.Array:
  """[R] bool."""
  return (jnp.arange(len(s.tokens)) < s.waiting).at[s.row].set(False, mode="drop")


def samples(s: Slots, end_ids: tuple[int, ...]) -> Samples:
  """The responses as far as they are written."""
  written = s.tokens >= 0
  return Samples(
    tokens=jnp.where(written, s.tokens, 0),
    mask=s.mask,
    log_probs=s.log_probs,
    lengths=written.sum(axis=-1, dtype=jnp.int32),
    truncated=~jnp.isin(s.tokens, jnp.array(end_ids)).any(axis=-1),
  )


def grow(cache: PyTree, length: int) -> PyTree:
  """The cache with room for `length` keys a row."""
  padding = lambda x: [(0, length - n if axis == 2 else 0) for axis, n in enumerate(x.shape)]
  return jax.tree.map(lambda x: x if x.shape[2] == length else jnp.pad(x, padding(x)), cache)


def _finished_rows(s: Slots) -> jax.Array:
  """[] int32. Rows start in the order of the queue, so finished rows have started and left."""
  return s.waiting - (s.row < len(s.tokens)).sum(dtype=jnp.int32)


def _occupied(job: Job, s: Slots) -> jax.Array:
  """[] bool, whether fewer slots are free than rows should start together (or no row waits)."""
  waiting, free = len(s.tokens) - s.waiting, (s.row == len(s.tokens)).sum()
  return (waiting == 0) | (free < jnp.minimum(job.refill, waiting))


def _decode(job: Job, s: Slots, until: jax.Array | int) -> Slots:
  """Writes tokens until `until` rows are finished, until waiting rows should start, or, where no
  row waits, until the cache is full."""
  length = jax.tree.leaves(s.cache)[0].shape[2]
  room = lambda s: _occupied(job, s) if job.refill else s.iteration < length
  goes_on = lambda s: _any((_finished_rows(s) < until) & room(s))
  if len(job.read_lengths) < 2:
    return jax.lax.while_loop(goes_on, lambda s: _write_token(job, s), s)
  return jax.lax.while_loop(goes_on, lambda s: _by_read_length(job, s, goes_on), s)


def _by_read_length(job: Job, s: Slots, goes_on: Callable) -> Slots:
  """One loop for each read length, one after the other. Each runs while the longest row needs that
  length and no less. A loop with nothing to do hands the cache on without a copy."""
  longer = lambda s, n: _any((s.row < len(s.tokens)) & (s.steps >= n))
  for least, read_length in itertools.pairwise((0, *job.read_lengths)):
    s = jax.lax.while_loop(
      lambda s: goes_on(s) & longer(s, least) & ~longer(s, read_length),  # noqa: B023
      lambda s: _write_token(job, s, read_length),  # noqa: B023
      s,
    )
  return s


def _write_token(job: Job, s: Slots, read_length: int | None = None) -> Slots:
  """One token in every slot, of which none has more than `read_length` of its own."""
  queue, rows = job.queue, len(job.queue.caps)
  hidden, cache = job.policy.decode(
    job.params,
    s.token,
    s.position,
    s.cache,
    at=s.steps if job.refill else s.iteration,
    live=s.row < rows,
    prompts=s.prompts,
    read_length=read_length,
  )
  row = jnp.minimum(s.row, rows - 1)  # any row will do for a free slot
  control, token, forced, log_prob = _next(job, s, hidden, row)

  position = (s.row, s.steps)  # row R does not exist: JAX drops what a free slot writes
  ended = jnp.isin(token, jnp.array(job.end_ids))
  stays = (s.row < rows) & ~ended & (s.steps + 1 < queue.caps[row])
  return s._replace(
    row=jnp.where(stays, s.row, rows),
    token=token,
    position=s.position + stays,
    steps=s.steps + stays,
    control=control,
    cache=cache,
    iteration=s.iteration + 1,
    tokens=s.tokens.at[position].set(token, mode="drop"),
    mask=s.mask.at[position].set(~forced, mode="drop"),
    log_probs=s.log_probs.at[position].set(jnp.where(forced, 0.0, log_prob), mode="drop"),
  )


def _next(job: Job, s: Slots, hidden, row) -> tuple[PyTree, jax.Array, jax.Array, jax.Array]:
  """Of every slot: the new control state, the token, whether it is forced, its log-prob."""
  temperature = job.queue.temperature[row]
  keys = jax.vmap(jax.random.fold_in)(job.queue.keys[row], s.steps)
  if job.fused:
    softcap = job.policy.config.logit_softcap
    token, log_prob = triton_draw.draw(hidden, job.head.T, keys, temperature, softcap=softcap)
    return s.control, token, jnp.zeros(token.shape, bool), log_prob
  logits = head_logits(job.policy.config, hidden, job.head)
  logits = logits / jnp.where(temperature > 0, temperature, 1.0)[:, None]
  sampled = draw(tile(job.control.shape(s.control, logits)), keys, temperature <= 0)
  control, token, forced = job.control.take(s.control, logits, sampled)
  return control, token, forced, log_probs(logits, token)


def _refill(job: Job, s: Slots) -> Slots:
  """Starts waiting rows in free slots, up to `job.refill` of them.

  Several rows start together: a prefill reads all weights, however few rows it has, and no slot
  writes a token meanwhile.
  """
  queue, rows, size, batch = job.queue, len(job.queue.caps), job.slots, job.refill
  slots = jnp.argsort(s.row < rows)[:batch]  # free ones first
  new = s.waiting + jnp.arange(batch, dtype=jnp.int32)
  starts = (s.row[slots] == rows) & (new < rows)
  slots = jnp.where(starts, slots, size)  # slot S does not exist: JAX drops what goes there
  row = jnp.minimum(new, rows - 1)
  put = lambda old, x: old.at[slots].set(x, mode="drop")
  tokens, lengths = queue.tokens[row], queue.lengths[row]
  prompts = _prefill(job, tokens[:: job.group], lengths[:: job.group])
  each = jax.tree.map(lambda x: jnp.repeat(x, job.group, axis=0), prompts)
  return s._replace(
    row=put(s.row, new),
    token=put(s.token, _last(tokens, lengths)),
    position=put(s.position, lengths - 1),
    steps=put(s.steps, 0),
    control=jax.tree.map(lambda old, x: put(old, x[row]), s.control, queue.control),
    prompts=jax.tree.map(put, s.prompts, each),
    waiting=s.waiting + starts.sum(dtype=jnp.int32),
  )


def _empty_slots(job: Job) -> Slots:
  """All slots are free, all rows wait."""
  (rows, prompt), size = job.queue.tokens.shape, job.slots
  zeros = jnp.zeros((size,), jnp.int32)
  empty = lambda length: job.policy.init_cache(size, length, job.cache_dtype)
  return Slots(
    row=zeros + rows,
    token=zeros,
    position=zeros,
    steps=zeros,
    control=jax.tree.map(lambda x: x[:size], job.queue.control),
    prompts=Prompts(zeros, empty(prompt)),
    cache=empty(job.cache_lengths[0]),
    waiting=jnp.int32(0),
    iteration=jnp.int32(0),
    tokens=jnp.full((rows, job.max_tokens), -1, jnp.int32),
    mask=jnp.zeros((rows, job.max_tokens), bool),
    log_probs=jnp.zeros((rows, job.max_tokens), jnp.float32),
  )


def _all_rows_in_slots(job: Job) -> Slots:
  """Every row has a slot of its own. One prefill a group."""
  queue, rows = job.queue, len(job.queue.caps)
  return _empty_slots(job)._replace(
    row=jnp.arange(rows, dtype=jnp.int32),
    token=_last(queue.tokens, queue.lengths),
    position=queue.lengths - 1,
    prompts=_prefill(job, queue.tokens[:: job.group], queue.lengths[:: job.group]),
    waiting=jnp.int32(rows),
  )


def _prefill(job: Job, tokens, lengths) -> Prompts:
  """Keys and values of prompts without their last tokens, which the loop reads itself."""
  empty = job.policy.init_cache(*tokens.shape, job.cache_dtype)
  return Prompts(lengths - 1, job.policy.prefill(job.params, tokens, lengths, empty)[1])


def _last(tokens, lengths):
  """The last prompt token. The loop reads it first, which gives the logits of the first sample."""
  return jnp.take_along_axis(tokens, lengths[:, None] - 1, axis=1)[:, 0]


@jax.custom_batching.custom_vmap
def _any(flags):
  """Whether any flag is set, over vmapped axes too.

  A loop whose predicate differs along a vmapped axis selects, for every token, between the old and
  the new of its whole carry, the cache included: a copy of the cache a token. With one predicate
  for all, the loop ends for all at once, and further steps change nothing in lanes that are done.
  """
  return jnp.any(flags)


@_any.def_vmap
def _(axis_size, batched, flags):
  del axis_size, batched
  return _any(flags), False

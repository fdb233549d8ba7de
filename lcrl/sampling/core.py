"""Sampling on the device: rows wait in a queue, slots decode them token by token.

    queue   row 0 .. 5 started | 6  7  8  9 wait
                                 |  |  refill: prefill 2 rows, once 2 slots are free
                                 v  v
    slots   [row 3] [row R, free] [row 5] [row R, free]   S slots; each writes one token a step
                |                     |
    rows    row 3: a b c _ _      row 5: a _ _ _ _        [R, N] tokens, masks, log-probs

A row leaves its slot at an end token, at a stop text or at its cap. Without a limit of slots
(`refill` is 0) all rows start together and no row waits. The keys of a row then lie in two places:
those of its prompt, which a group may share, and its own, from the last prompt token on. With a
limit they lie in the pages of a pool (`lcrl.sampling.pages`), which rows take as they grow.

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
from lcrl.policies.experts import id_dtype
from lcrl.sampling import pages, triton_draw
from lcrl.sampling.draw import draw, log_probs, tile
from lcrl.sampling.jobs import Job, PyTree, plan
from lcrl.sampling.pages import Pages
from lcrl.types import EndReason


class Samples(NamedTuple):
  """Responses, left-aligned; 0 and False behind their ends."""

  tokens: jax.Array  # [R, N] int32, the end token included
  mask: jax.Array  # [R, N] bool, tokens that the policy chose (a control may force others)
  log_probs: jax.Array  # [R, N] float32, 0 where masked
  lengths: jax.Array  # [R] int32, tokens written
  truncated: jax.Array  # [R] bool, the cap ended it
  end: jax.Array | None = None  # [R] int8, an EndReason; None: an end token or the cap
  cut: jax.Array | None = None  # [R] bool, the thinking met its budget; None: there is none
  # [R, N, layers, k] int, experts that the token before each token chose; None: they are not kept
  experts: jax.Array | None = None


class Ends(NamedTuple):
  """Why rows ended, where that is not told by their end tokens alone."""

  reason: jax.Array  # [R] int8, an EndReason
  cut: jax.Array | None  # [R] bool, the thinking met its budget; None: no control cuts it


class Slots(NamedTuple):
  """The carry of the loop. A slot whose row is R is free, and its results are dropped."""

  row: jax.Array  # [S] int32
  token: jax.Array  # [S] int32, the last one of the row, not in the cache yet
  position: jax.Array  # [S] int32, where that token stands
  steps: jax.Array  # [S] int32, response tokens written
  control: PyTree  # leaves [S, ...]
  prompts: Prompts | None  # one a group; None with pages
  cache: PyTree  # leaves [S, ...], of the last prompt token and the response; or the pool [C, ...]
  pages: Pages | None  # where the keys of each slot lie in the pool
  waits: jax.Array  # [R] bool, rows that are not in a slot and not finished
  iteration: jax.Array  # [] int32, of the loop; every slot writes one token in each
  tokens: jax.Array  # [R, N] int32, -1 where nothing is written
  mask: jax.Array  # [R, N] bool
  log_probs: jax.Array  # [R, N] float32
  ends: Ends | None = None
  experts: jax.Array | None = None  # [R, N, layers, k] int, as in `Samples`; -1: none


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
  s, rows = start(job), len(job.queue.caps)
  if not job.refill:
    for length in job.cache_lengths[:-1]:
      s = advance(job, s._replace(cache=grow(s.cache, length)), rows)
    s = s._replace(cache=grow(s.cache, job.cache_lengths[-1]))
  return samples(advance(job, s, rows), job.end_ids)


def start(job: Job) -> Slots:
  """Slots before the first token: one for every row, or all free while all rows wait."""
  return _empty_slots(job) if job.refill else _all_rows_in_slots(job)


def advance(job: Job, s: Slots, until: jax.Array | int) -> Slots:
  """Writes tokens until `until` rows are finished, or until the cache is full."""
  if not job.refill:
    length = jax.tree.leaves(s.cache)[0].shape[2]
    return _decode(job, s, lambda s: (_finished_rows(s) < until) & (s.iteration < length))

  fewer = job._replace(slots=job.narrow)
  goes_on = lambda s: _finished_rows(s) < until
  narrow = lambda s: ~s.waits.any() & (len(s.row) - _free(s) <= fewer.slots)

  def wide_then_narrow(s):
    s = jax.lax.while_loop(
      lambda s: _any(goes_on(s) & ~narrow(s)), lambda s: _turn(job, s, until), s
    )
    chosen, some = _compact(fewer, s)
    some = jax.lax.while_loop(
      lambda s: _any(goes_on(s) & ~s.waits.any()), lambda s: _decode_pages(fewer, s, until), some
    )
    return _spread(s, chosen, some)

  if fewer.slots == job.slots:
    return jax.lax.while_loop(lambda s: _any(goes_on(s)), lambda s: _turn(job, s, until), s)
  return jax.lax.while_loop(lambda s: _any(goes_on(s)), wide_then_narrow, s)


def _turn(job: Job, s: Slots, until: jax.Array | int) -> Slots:
  """Starts rows, then writes tokens until pages are full or more rows can start."""
  can_start = lambda s: _any((_free(s) >= _enough(job, s)) & pages.startable(job, s))
  s = jax.lax.while_loop(can_start, lambda s: _refill(job, s), s)
  return _decode_pages(job, s, until)


def _decode_pages(job: Job, s: Slots, until: jax.Array | int) -> Slots:
  """Gives pages, and writes tokens until these are full or more rows can start."""
  s = pages.grant(job, s)
  end, waits = s.iteration + job.page, s.waits.any()
  enough = jnp.maximum(_enough(job, s), _free(s) + 1)  # where pages, not slots, keep rows waiting
  goes_on = lambda s: (_finished_rows(s) < until) & (~waits | (_free(s) < enough))
  return _decode(job, s, lambda s: goes_on(s) & (s.iteration < end))


_OF_SLOTS = ("row", "token", "position", "steps", "control")


def _compact(job: Job, s: Slots) -> tuple[jax.Array, Slots]:
  """The slots of the last few rows, in a batch of their own: products are of fewer rows. Keys stay
  where they are, in the pool."""
  chosen = jnp.argsort(s.row == len(s.tokens))[: job.slots]
  take = lambda x: x[chosen]
  held = {name: jax.tree.map(take, getattr(s, name)) for name in _OF_SLOTS}
  return chosen, s._replace(**held, pages=s.pages and s.pages.map(take))


def _spread(s: Slots, chosen: jax.Array, some: Slots) -> Slots:
  """The slots `s`, of which those `chosen` have gone on as `some`."""
  put = lambda old, new: old.at[chosen].set(new)
  held = {name: jax.tree.map(put, getattr(s, name), getattr(some, name)) for name in _OF_SLOTS}
  return some._replace(**held, pages=s.pages and some.pages and s.pages.map(put, some.pages))


def finished(s: Slots) -> jax.Array:
  """[R] bool."""
  return (~s.waits).at[s.row].set(False, mode="drop")


def samples(s: Slots, end_ids: tuple[int, ...]) -> Samples:
  """The responses as far as they are written."""
  written, ends = s.tokens >= 0, s.ends
  at_token = lambda: jnp.isin(s.tokens, jnp.array(end_ids)).any(axis=-1)
  return Samples(
    tokens=jnp.where(written, s.tokens, 0),
    mask=s.mask,
    log_probs=s.log_probs,
    lengths=written.sum(axis=-1, dtype=jnp.int32),
    truncated=~at_token() if ends is None else ends.reason == EndReason.CAP,
    end=ends and ends.reason,
    cut=ends and ends.cut,
    experts=s.experts,
  )


def grow(cache: PyTree, length: int) -> PyTree:
  """The cache with room for `length` keys a row."""
  padding = lambda x: [(0, length - n if axis == 2 else 0) for axis, n in enumerate(x.shape)]
  return jax.tree.map(lambda x: x if x.shape[2] == length else jnp.pad(x, padding(x)), cache)


def _finished_rows(s: Slots) -> jax.Array:
  """[] int32."""
  return (~s.waits).sum(dtype=jnp.int32) - (s.row < len(s.tokens)).sum(dtype=jnp.int32)


def _free(s: Slots) -> jax.Array:
  """[] int32, slots without a row."""
  return (s.row == len(s.tokens)).sum(dtype=jnp.int32)


def _enough(job: Job, s: Slots) -> jax.Array:
  """[] int32, how many slots should be free before rows start: a refill, or all that wait."""
  return jnp.clip(s.waits.sum(dtype=jnp.int32), 1, job.refill)


def _decode(job: Job, s: Slots, goes_on: Callable[[Slots], jax.Array]) -> Slots:
  """Writes tokens while `goes_on`."""
  on = lambda s: _any(goes_on(s))
  if len(job.read_lengths) < 2:
    return jax.lax.while_loop(on, lambda s: _write_token(job, s), s)
  return jax.lax.while_loop(on, lambda s: _by_read_length(job, s, on), s)


def _by_read_length(job: Job, s: Slots, goes_on: Callable) -> Slots:
  """One loop for each read length, one after the other. Each runs while the longest row needs that
  length and no less. A loop with nothing to do hands the cache on without a copy."""
  longer = lambda s, n: _any((s.row < len(s.tokens)) & (s.position >= n))
  for least, read_length in itertools.pairwise((0, *job.read_lengths)):
    s = jax.lax.while_loop(
      lambda s: goes_on(s) & longer(s, least) & ~longer(s, read_length),  # noqa: B023
      lambda s: _write_token(job, s, read_length),  # noqa: B023
      s,
    )
  return s


def _write_token(job: Job, s: Slots, read_length: int | None = None) -> Slots:
  """One token in every slot, of which none is at position `read_length` or behind it."""
  queue, rows = job.queue, len(job.queue.caps)
  options = {"experts": True} if job.keeps_experts else {}
  hidden, cache, *chosen = job.policy.decode(
    job.params,
    s.token,
    s.position,
    s.cache,
    at=None if s.pages else s.iteration,
    live=s.row < rows,
    prompts=s.prompts,
    table=s.pages and s.pages.table,
    read_length=read_length,
    **options,
  )
  row = jnp.minimum(s.row, rows - 1)  # any row will do for a free slot
  control, token, forced, log_prob = _next(job, s, hidden, row)

  position = (s.row, s.steps)  # row R does not exist: JAX drops what a free slot writes
  ended, ends = _ended(job, s, control, jnp.isin(token, jnp.array(job.end_ids)))
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
    ends=ends,
    experts=None if s.experts is None else s.experts.at[position].set(chosen[0], mode="drop"),
  )


def _ended(job: Job, s: Slots, control: PyTree, at_token) -> tuple[jax.Array, Ends | None]:
  """Which slots have ended their rows with this token, [S] bool; and why rows ended, as of now: one
  that goes on stands as if its cap had ended it. `at_token`: it is an end token."""
  if s.ends is None:
    return at_token, None
  read = job.control
  stop = read.stops(control) if read.stops else jnp.zeros_like(s.row)
  at_text = jnp.where(stop > 0, EndReason.STOP_TEXT - 1 + stop, EndReason.CAP)
  put = lambda old, x: old.at[s.row].set(x.astype(old.dtype), mode="drop")
  reason = put(s.ends.reason, jnp.where(at_token, EndReason.END_TOKEN, at_text))
  cut = put(s.ends.cut, read.cut(control)) if read.cut else None
  return at_token | (stop > 0), Ends(reason, cut)


def _next(job: Job, s: Slots, hidden, row) -> tuple[PyTree, jax.Array, jax.Array, jax.Array]:
  """Of every slot: the new control state, the token, whether it is forced, its log-prob."""
  temperature = job.queue.temperature[row]
  keys = jax.vmap(jax.random.fold_in)(job.queue.keys[row], s.steps)
  if job.fused:
    softcap = job.policy.config.logit_softcap
    sampled, log_prob = triton_draw.draw(hidden, job.head.T, keys, temperature, softcap=softcap)
    return *job.control.take(s.control, None, sampled), log_prob
  logits = head_logits(job.policy.config, hidden, job.head)
  logits = logits / jnp.where(temperature > 0, temperature, 1.0)[:, None]
  shaped = job.control.shape(s.control, logits) if job.control.shape else logits
  sampled = draw(tile(shaped), keys, temperature <= 0)
  control, token, forced = job.control.take(s.control, logits, sampled)
  return control, token, forced, log_probs(logits, token)


def _refill(job: Job, s: Slots) -> Slots:
  """Starts waiting rows in free slots, up to `job.refill` of them.

  Several rows start together: a prefill reads all weights, however few rows it has, and no slot
  writes a token meanwhile.
  """
  queue, new = job.queue, pages.next_starts(job, s)
  put = lambda old, x: old.at[new.slots].set(x, mode="drop")
  tokens, lengths = queue.tokens[new.rows], queue.lengths[new.rows]
  prompts = _prefill(job, tokens[:: job.group], lengths[:: job.group])
  started = jnp.where(new.starts, new.rows, len(queue.caps))
  return s._replace(
    row=put(s.row, new.rows),
    token=put(s.token, _last(tokens, lengths)),
    position=put(s.position, lengths - 1),
    steps=put(s.steps, 0),
    control=jax.tree.map(lambda old, x: put(old, x[new.rows]), s.control, queue.control),
    cache=pages.write(job, s.cache, new, prompts.layers),
    pages=pages.start(job, s, new),
    waits=s.waits.at[started].set(False, mode="drop"),
    # A row that starts again has written tokens before.
    tokens=s.tokens.at[started].set(-1, mode="drop"),
    mask=s.mask.at[started].set(False, mode="drop"),
    log_probs=s.log_probs.at[started].set(0.0, mode="drop"),
  )


def _empty_slots(job: Job) -> Slots:
  """All slots are free, all rows wait, and the pool is empty."""
  rows, size = len(job.queue.caps), job.slots
  zeros = jnp.zeros((size,), jnp.int32)
  cut = jnp.zeros((rows,), bool) if job.control.cut else None
  ends = Ends(jnp.full((rows,), EndReason.CAP, jnp.int8), cut)
  return Slots(
    row=zeros + rows,
    token=zeros,
    position=zeros,
    steps=zeros,
    control=jax.tree.map(lambda x: x[:size], job.queue.control),
    prompts=None,
    cache=job.policy.init_cache(job.pages, job.page, job.cache_dtype),
    pages=pages.empty(job),
    waits=jnp.ones((rows,), bool),
    iteration=jnp.int32(0),
    tokens=jnp.full((rows, job.max_tokens), -1, jnp.int32),
    mask=jnp.zeros((rows, job.max_tokens), bool),
    log_probs=jnp.zeros((rows, job.max_tokens), jnp.float32),
    ends=ends if job.control.stops or job.control.cut else None,
    experts=_no_experts(job) if job.keeps_experts else None,
  )


def _no_experts(job: Job) -> jax.Array:
  c = job.policy.config
  shape = len(job.queue.caps), job.max_tokens, c.layers, c.experts_per_token
  return jnp.full(shape, -1, id_dtype(c.experts))


def _all_rows_in_slots(job: Job) -> Slots:
  """Every row has a slot of its own. One prefill a group."""
  queue, rows = job.queue, len(job.queue.caps)
  return _empty_slots(job)._replace(
    row=jnp.arange(rows, dtype=jnp.int32),
    token=_last(queue.tokens, queue.lengths),
    position=queue.lengths - 1,
    prompts=_prefill(job, queue.tokens[:: job.group], queue.lengths[:: job.group]),
    cache=job.policy.init_cache(job.slots, job.cache_lengths[0], job.cache_dtype),
    pages=None,
    waits=jnp.zeros((rows,), bool),
  )


def _prefill(job: Job, tokens, lengths) -> Prompts:
  """Keys and values of prompts without their last tokens, which the loop reads itself."""
  length = job.prompt_pages * job.page if job.refill else tokens.shape[1]
  empty = job.policy.init_cache(len(tokens), length, job.cache_dtype)
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

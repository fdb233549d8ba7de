"""A job of the sampler: arguments checked, defaults filled in. R rows, P prompt positions."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcrl.mesh import tensor_shards
from lcrl.policies.cache import read_lengths
from lcrl.policies.decoding import KERNELS
from lcrl.sampling import triton_draw
from lcrl.sampling.controls import Asked, Control, plain, sparing
from lcrl.sharding import ranks

PyTree = Any
SHORTEST = 64  # the shortest cache of responses
MAX_DOUBLINGS = 3  # of its length: each length is a program of its own
PAGE = 64  # tokens of a page
LEAST_NARROW = 16  # products of fewer rows take as long


class Queue(NamedTuple):
  """All rows. Those of a group are neighbours."""

  tokens: jax.Array  # [R, P] int32
  lengths: jax.Array  # [R] int32
  caps: jax.Array  # [R] int32
  keys: jax.Array  # [R]
  temperature: jax.Array  # [R] float32
  control: PyTree  # leaves [R, ...], states before the first token
  order: jax.Array  # [R / group] int32, the place of each group in the order in which they start


class Job(NamedTuple):
  """The constants of the loops in `core`; `plan` makes it."""

  policy: Any
  params: PyTree  # unstacked
  head: jax.Array  # [D, V], in the dtype of the computation
  fused: bool  # one kernel multiplies with the head and draws; only where nothing shapes logits
  control: Control
  end_ids: tuple[int, ...]
  queue: Queue
  max_tokens: int
  slots: int
  refill: int  # rows that start together; 0: all at once, and no row waits
  group: int
  cache_dtype: str | None
  cache_lengths: tuple[int, ...]  # of the responses' cache, one after the other; without slots
  read_lengths: tuple[int, ...]  # how far all slots read; empty: each row its own length
  narrow: int  # slots that go on where no row waits and no more are left; `slots`: all
  page: int  # tokens of a page; of slots alone, as what follows
  pages: int  # of the pool
  row_pages: int  # that the longest row needs
  prompt_pages: int  # of the longest prompt
  keeps_experts: bool = False  # that tokens chose


def plan(
  policy,
  params: PyTree,
  tokens: jax.Array,
  lengths: jax.Array,
  caps: jax.Array,
  keys: jax.Array,
  *,
  max_tokens: int,
  end_ids: tuple[int, ...],
  temperature: jax.Array | float = 1.0,
  control: Control | None = None,
  slots: int | None = None,
  refill: int | None = None,
  group: int = 1,
  cache_dtype: str | None = None,
  growing: bool = True,
  pages: int | None = None,
  page: int = PAGE,
  expected: jax.Array | None = None,
  narrow: int | None = None,
  targets: jax.Array | None = None,
  forced: jax.Array | None = None,
  keeps_experts: bool = False,
) -> Job:
  """What to sample, and how.

  Args:
    policy: `lcrl.policies.Policy`, or another record with the same decode functions.
    params: from `policy.init`, or already from `policy.unstack`.
    tokens: [R, P] int32 prompts, right-padded.
    lengths: [R] int32, at least 1.
    caps: [R] int32, at least 1; beyond max_tokens they count as max_tokens.
    keys: [R] typed keys.
    max_tokens: N.
    end_ids: the tokens that end a response.
    temperature: [] or [R], at least 0.
    control: what else changes the distribution (`lcrl.sampling.controls`).
    slots: how many rows decode at once while the others wait; None: all, and there is no queue.
    refill: how many rows start together when slots are free; None: an eighth of the slots. At least
      and a multiple of `group`.
    group: this many neighbouring rows have the same prompt and share one prefill.
    cache_dtype: of keys and values, see `policies.cache.init_cache`; None: the policy's.
    growing: without slots, the cache is as long as the responses so far, in powers of 2, for a
      policy that reads all of its cache.
    pages: with slots, how many pages of keys there are; None: enough for `slots` rows of full
      length.
    page: tokens of a page.
    expected: [R], how long answers will be; with slots the groups of the longest start first, so
      that few are left alone at the end. Caps bound it. None: they start in their order.
    narrow: slots in which the last rows go on, so that products are of fewer rows; None: a quarter
      for a kernel, all where each further loop would be compiled for each length that is read.
    targets: [R], tokens that rows are asked for, where a control reads them; None: their caps.
    forced: [R], tokens at the end of prompts with which responses begin, likewise; None: none.
    keeps_experts: samples tell which experts each token chose.
  """
  rows, width = tokens.shape
  _check(rows, max_tokens=max_tokens, group=group, slots=slots, refill=refill, page=page)
  kernel = KERNELS[policy.config.decoding]
  fused = _fused(policy.config, control)
  control = sparing(control or plain(), end_ids)
  if not isinstance(params["layers"], tuple):
    params = policy.unstack(params)
  caps = jnp.minimum(caps, max_tokens)
  if control.init_asked is None:
    state = control.init(tokens, lengths)
  else:
    asked = Asked(
      caps if targets is None else targets, caps, 0 * caps if forced is None else forced
    )
    state = control.init_asked(tokens, lengths, asked)
  queue = Queue(
    tokens=tokens,
    lengths=lengths,
    caps=caps,
    keys=keys,
    temperature=jnp.broadcast_to(jnp.asarray(temperature, jnp.float32), (rows,)),
    control=state,
    order=_order(jnp.zeros(rows) if expected is None else jnp.minimum(expected, caps), group),
  )
  size, refill = (rows, 0) if slots is None else _slots(rows, slots, refill, group)
  row_pages = pages_of(width + max_tokens, page)
  if pages is not None and slots is not None and pages < row_pages:
    raise ValueError(
      f"{pages} pages of {page} tokens: a prompt of {width} tokens and a response of {max_tokens} "
      f"need {row_pages}."
    )
  every_row_alike = slots is not None and kernel.reads_all_rows_alike
  if narrow is None:
    splits = not kernel.reads_all_rows_alike and size >= 4 * LEAST_NARROW
    narrow = size // 4 if splits else size
  return Job(
    policy=policy,
    params=params,
    head=policy.head(params).astype(policy.config.dtype),
    fused=fused,
    control=control,
    end_ids=end_ids,
    queue=queue,
    max_tokens=max_tokens,
    slots=size,
    refill=refill,
    group=group,
    cache_dtype=cache_dtype,
    cache_lengths=cache_lengths(max_tokens) if growing and slots is None else (max_tokens,),
    read_lengths=read_lengths(width + max_tokens) if every_row_alike else (),
    narrow=min(narrow, size),
    page=page,
    pages=min(pages or size * row_pages, size * row_pages),
    row_pages=row_pages,
    prompt_pages=pages_of(width, page),
    keeps_experts=keeps_experts,
  )


def _check(
  rows: int, *, max_tokens: int, group: int, slots: int | None, **others: int | None
) -> None:
  """Raises ValueError for counts with which nothing can be sampled."""
  if max_tokens < 1:
    raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")
  for name, value in {"slots": slots, **others}.items():
    if value is not None and value < 1:
      raise ValueError(f"{name} must be at least 1, got {value}.")
  if group < 1 or rows % group:
    raise ValueError(f"group must divide the {rows} rows, got {group}.")
  if slots is not None and slots < group:
    raise ValueError(f"slots must be at least the group of {group}, got {slots}.")


def _fused(c: Any, control: Control | None) -> bool:
  """Can one kernel multiply with the head and draw? It takes the whole vocabulary, and logits as
  they are."""
  if control is not None and control.shape is not None:
    return False
  return KERNELS[c.decoding].nvidia and triton_draw.refusal(c) is None and tensor_shards() == 1


def _order(expected: jax.Array, group: int) -> jax.Array:
  """[R / group]: the place of each group, those of the longest expected answers [R] first."""
  return ranks(-expected.reshape(-1, group).max(axis=1)).astype(jnp.int32)


def _slots(rows: int, slots: int, refill: int | None, group: int) -> tuple[int, int]:
  """How many rows decode at once, and how many start together.

  >>> _slots(100, 64, None, 4), _slots(20, 64, 3, 4)
  ((64, 8), (20, 4))
  """
  size = min(slots, rows)
  refill = min(refill or -(-size // 8), size)
  return size, max(refill - refill % group, group)


def pages_of(tokens: int, page: int) -> int:
  """How many pages hold so many tokens.

  >>> pages_of(65, 64)
  2
  """
  return -(-tokens // page)


def cache_lengths(max_tokens: int) -> tuple[int, ...]:
  """Lengths of a growing cache. Each is about twice the one before, the last is max_tokens.

  >>> cache_lengths(1000)
  (125, 250, 500, 1000)
  """
  lengths = [max_tokens]
  while len(lengths) <= MAX_DOUBLINGS and lengths[0] >= 2 * SHORTEST:
    lengths.insert(0, -(-lengths[0] // 2))
  return tuple(lengths)

"""Rows in slots whose keys lie in pages: who starts, who gets a page, who gives way.

    pool     page 0 .. C-1, each of `page` tokens, of all layers alike
    table    slot 0: [ 7  2  9 ]     prompt pages 7, 2 are shared by the group, 9 and later are own
             slot 1: [ 7  2  4  0 ]

A page is in use while the table of an occupied slot names it, so a row that ends gives its pages
back by leaving its slot. At least every `page` tokens the loop stops, and every row in a slot gets
a page if it may need one before the next stop. Where the pool has none left, the rows that started
last leave their slots, wait, and start again from their prompts. The random keys of a row decide
what it samples, so it then samples the same.

A row's own pages begin with the last, partly filled page of its prompt, of which each row of a
group has a copy. S slots, R rows, W pages of a row, C pages of the pool.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from lcrl.sampling.jobs import Job

if TYPE_CHECKING:  # the core imports this module
  from lcrl.sampling.core import Slots

PyTree = Any


class Pages(NamedTuple):
  """What the slots hold of the pool."""

  table: jax.Array  # [S, W] int32, pages in the order of a row's tokens
  held: jax.Array  # [S] int32, how many of them count
  start: jax.Array  # [S] int32, which start of all this row was
  starts: jax.Array  # [] int32, starts of rows so far
  peak: jax.Array  # [] int32, the most pages in use at once

  def map(self, f: Callable[..., jax.Array], *others: Pages) -> Pages:
    """`f` of what each slot holds; counters are those of the last."""
    p = others[-1] if others else self
    each = {x: f(*(getattr(q, x) for q in (self, *others))) for x in ("table", "held", "start")}
    return p._replace(**each)


class PoolUse(NamedTuple):
  """How far the pools of all devices were used."""

  restarts: (
    jax.Array
  )  # [] float32, how often a row was sent back because the pool ran dry, on average
  peak: jax.Array  # [] float32, the largest share of a device's pages in use at once


class Starts(NamedTuple):
  """The next rows to start, by the group: n groups of g rows."""

  rows: jax.Array  # [n g] int32
  slots: jax.Array  # [n g] int32, S where the row does not start
  starts: jax.Array  # [n g] bool
  ready: jax.Array  # [] int32, rows of these groups that wait
  shared: jax.Array  # [n, full pages of the longest prompt] int32, C where there is none
  own: jax.Array  # [n g] int32, the first page of each row's own, C where it does not start


def empty(job: Job) -> Pages:
  zeros = jnp.zeros((job.slots,), jnp.int32)
  table = jnp.zeros((job.slots, job.row_pages), jnp.int32)
  return Pages(table, zeros, zeros, jnp.int32(0), jnp.int32(0))


def in_use(job: Job, s: Slots) -> jax.Array:
  """[C] bool."""
  assert s.pages is not None
  held = jnp.where(s.row < len(s.tokens), s.pages.held, 0)
  named = jnp.where(jnp.arange(job.row_pages)[None] < held[:, None], s.pages.table, job.pages)
  return jnp.zeros((job.pages,), bool).at[named].set(True, mode="drop")


def startable(job: Job, s: Slots) -> jax.Array:
  """[] bool, whether enough rows can start to be worth a prefill: all that wait of the next groups,
  or more than are in slots."""
  new, live = next_starts(job, s), (s.row < len(s.tokens)).sum()
  count = new.starts.sum()
  return (count > 0) & ((count == new.ready) | (count > live))


def next_starts(job: Job, s: Slots) -> Starts:
  """The first waiting rows, as many as slots and pages allow.

  A page stays free for each row that may need one more, so that starting rows does not make others
  leave at once.
  """
  assert s.pages is not None
  rows, group, page = len(s.tokens), job.group, job.page
  waits = s.waits.reshape(-1, group)
  rank = jnp.where(waits.any(axis=1), job.queue.order, len(waits))
  groups = jnp.argsort(rank)[: job.refill // group].astype(jnp.int32)
  ready = waits[groups]
  full = (job.queue.lengths[groups * group] - 1) // page
  first = ready & (jnp.cumsum(ready, axis=1) == 1)
  needed = (ready + first * full[:, None]).reshape(-1)
  ready = ready.reshape(-1)

  free = jnp.nonzero(~in_use(job, s), size=job.pages, fill_value=job.pages)[0].astype(jnp.int32)
  count, live = (free < job.pages).sum(), (s.row < rows).sum()
  nth, before = jnp.cumsum(ready) - ready, jnp.cumsum(needed) - needed
  row, new = jnp.minimum(s.row, rows - 1), (groups[:, None] * group + jnp.arange(group)[None])
  grows = ready & (_last_page(job, new) > full[:, None]).reshape(-1)
  reserve = ((s.row < rows) & (_last_page(job, row) >= s.pages.held)).sum() + jnp.cumsum(grows)
  alone = (live == 0) & (nth == 0)
  fits = before + needed + jnp.where(alone, 0, reserve) <= count
  starts = ready & (nth < job.slots - live) & fits
  slots = jnp.argsort(s.row < rows)[jnp.minimum(nth, job.slots - 1)]

  take = lambda at: free.at[at].get(mode="fill", fill_value=job.pages)
  begin = jnp.where(first, before.reshape(first.shape), 0).sum(axis=1)  # of a group's shared pages
  index = jnp.arange(job.prompt_pages)[None]
  given = (first & starts.reshape(first.shape)).any(axis=1)[:, None]
  return Starts(
    rows=new.reshape(-1),
    slots=jnp.where(starts, slots, job.slots).astype(jnp.int32),
    starts=starts,
    ready=ready.sum(),
    shared=jnp.where(given & (index < full[:, None]), take(begin[:, None] + index), job.pages),
    own=jnp.where(starts, take(before + needed - 1), job.pages),
  )


def _last_page(job: Job, row: jax.Array) -> jax.Array:
  """The number of the page behind which these rows write no key."""
  return (job.queue.lengths[row] - 2 + job.queue.caps[row]) // job.page


def start(job: Job, s: Slots, new: Starts) -> Pages:
  """The tables with the new rows."""
  assert s.pages is not None
  p, full = s.pages, (job.queue.lengths[new.rows] - 1) // job.page
  index = jnp.arange(job.row_pages)[None]
  shared = jnp.repeat(new.shared, job.group, axis=0)
  shared = jnp.pad(shared, ((0, 0), (0, job.row_pages - shared.shape[1])))
  table = jnp.where(
    index < full[:, None], shared, jnp.where(index == full[:, None], new.own[:, None], 0)
  )
  put = lambda old, x: old.at[new.slots].set(x, mode="drop")
  count = jnp.cumsum(new.starts)
  return p._replace(
    table=put(p.table, table),
    held=put(p.held, full + 1),
    start=put(p.start, p.starts + count - 1),
    starts=p.starts + count[-1],
  )


def write(job: Job, pool: PyTree, new: Starts, prompts: PyTree) -> PyTree:
  """Copies prompts [n, K, full pages, ...] into the pages of their rows: a group's full pages once,
  the rest of the prompt to each row."""
  full = (job.queue.lengths[new.rows] - 1) // job.page
  which = jnp.arange(len(new.rows)) // job.group

  def put(old, x):
    x = x.reshape(*x.shape[:2], job.prompt_pages, job.page, *x.shape[3:]).swapaxes(1, 2)
    old = old.at[new.shared].set(x, mode="drop")
    return old.at[new.own].set(x[which, full], mode="drop")

  return jax.tree.map(put, pool, prompts)


def grant(job: Job, s: Slots) -> Slots:
  """Gives a page to every row in a slot that may need one for its next `job.page` tokens, to those
  that started first before others. Rows that get none leave their slots and wait."""
  assert s.pages is not None
  rows, p = len(s.tokens), s.pages
  row, live = jnp.minimum(s.row, rows - 1), s.row < rows
  soon = jnp.minimum((s.position + job.page - 1) // job.page, _last_page(job, row))
  needs = live & (soon >= p.held)

  order = jnp.argsort(jnp.where(live, p.start, jnp.iinfo(jnp.int32).max))
  full = (job.queue.lengths[row] - 1) // job.page
  own = jnp.where(live, p.held - full, 0)[order]
  released = own.sum() - jnp.cumsum(own)  # at least, if all rows that started later leave
  free = job.pages - in_use(job, s).sum()
  stays = (jnp.cumsum(needs[order]) <= free + released) | (jnp.arange(job.slots) == 0)
  leaves = live & ~jnp.zeros_like(live).at[order].set(jnp.cumprod(stays).astype(bool))
  waits = s.waits.at[jnp.where(leaves, s.row, rows)].set(True, mode="drop")
  s = s._replace(row=jnp.where(leaves, rows, s.row), waits=waits)

  used, needs = in_use(job, s), needs & ~leaves
  free_ids = jnp.nonzero(~used, size=min(job.slots, job.pages), fill_value=0)[0].astype(jnp.int32)
  new = free_ids.at[jnp.cumsum(needs) - 1].get(mode="clip")
  at = jnp.arange(job.slots), jnp.where(needs, p.held, job.row_pages)
  peak = jnp.maximum(p.peak, (used.sum() + needs.sum()).astype(jnp.int32))
  pages = p._replace(table=p.table.at[at].set(new, mode="drop"), held=p.held + needs, peak=peak)
  return s._replace(pages=pages)

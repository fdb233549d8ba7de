"""The programs that an engine compiles: one from rows to rollouts, or a few that the host can read
rollouts between.

`generate` is the plain path. A stream runs the same loops in pieces: `start_stream`, then several
times `advance_stream`, until a given number of rows of every data shard is finished, and
`read_stream`. The host dispatches them one after the other and waits for none of them to end.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl import policies
from lcrl.data.rows import Rows
from lcrl.mesh import BATCH, batch_sharding, batch_shards, param_shardings, replicated
from lcrl.policies.experts import CHOSEN
from lcrl.sampling import core, jobs
from lcrl.sampling.core import PyTree, Samples, Slots
from lcrl.sampling.pages import Pages, PoolUse
from lcrl.types import Budget, Outcome, Rollouts

if TYPE_CHECKING:  # the engine imports this module
  from lcrl.sampling.engine import Engine

# A stream is cut where so many sixteenths of the rows are finished. The first cut is early, so that
# verification begins soon; the last is late, so that little verification is left after sampling.
# There are few, because a piece costs the host 5 ms.
CUTS = (2, 8, 14)


class Piece(NamedTuple):
  """What has been sampled when a share of the rows is finished."""

  rollouts: Rollouts
  done: jax.Array  # [B, G] bool, which are finished
  pool: PoolUse | None = None  # with slots, of the last piece: of the whole stream


class Bucket(NamedTuple):
  """What a program is compiled for, besides the number of rows."""

  prompt: int  # P, tokens of a prompt that are read
  new: int  # N, places of a response
  share: bool  # the rows of a group have one prompt, read once


def generate(engine: Engine, params, rows: Rows, budget: Budget, key, bucket: Bucket) -> Rollouts:
  """Samples all rows to their ends. It makes the sampler's copy of the parameters itself, so that
  the host starts one program with few arguments."""
  if not isinstance(params["layers"], tuple):
    params = prepare(engine, params)
  work = lambda job, group: _by_group(core.complete(job), group)
  samples = _work(engine, work, params, rows, budget, key, bucket)
  return _rollouts(engine, rows, budget, samples, bucket)


def start_stream(engine: Engine, params, rows: Rows, budget: Budget, key, bucket: Bucket) -> Slots:
  """The slots before the first token."""
  work = lambda job, _: _counters(core.start(job), lambda x: x[None])
  return _lay_out(engine, _work(engine, work, params, rows, budget, key, bucket))


def advance_stream(
  engine: Engine, params, rows: Rows, budget: Budget, key, bucket: Bucket, slots: Slots, until
) -> Slots:
  """Writes tokens until `until` rows of each shard are finished, or its cache is full."""

  def work(job, _, slots, until):
    slots = _counters(slots, lambda x: x[0])
    return _counters(core.advance(job, slots, until), lambda x: x[None])

  carry = (slots, BATCH), (until, P())
  return _lay_out(engine, _work(engine, work, params, rows, budget, key, bucket, *carry))


@functools.partial(jax.jit, static_argnames=("engine", "bucket"))
def read_stream(engine: Engine, rows: Rows, budget: Budget, bucket: Bucket, slots: Slots):
  """The rollouts as far as they are written, and which are finished [B, G]."""
  work = lambda s: (core.samples(s, engine.end_ids), core.finished(s))
  grouped = lambda s: _by_group(work(s), rows.lengths.shape[1])
  samples, done = _over_shards(engine, grouped, BATCH)(slots)
  return _rollouts(engine, rows, budget, samples, bucket), done


@functools.partial(jax.jit, static_argnames=("engine", "pages"))
def read_pool(engine: Engine, p: Pages, rows: int, pages: int) -> PoolUse:
  """How far the slots have used their pools, once all of `rows` rows have started; of counters with
  an axis of shards, and `pages` pages of each."""
  use = PoolUse((p.starts.sum() - rows) / rows, p.peak.max() / pages)
  return use if engine.mesh is None else _constrain(use, replicated(engine.mesh))


_grow = jax.jit(core.grow, static_argnames="length")


@functools.cache
def compiled(run: Callable, compiler: tuple[tuple[str, Any], ...]) -> Callable:
  """`generate`, `start_stream` or `advance_stream`, jitted with these options of XLA."""
  # The slots hold the caches, most of the sampler's memory: undonated, there would be two of them.
  donated = "slots" if run is advance_stream else None
  return jax.jit(
    run,
    static_argnames=("engine", "bucket"),
    donate_argnames=donated,
    compiler_options=dict(compiler) or None,
  )


def stream(
  engine: Engine, params, rows: Rows, budget: Budget, key, bucket: Bucket
) -> Iterator[Piece]:
  """The results of `read_stream` after each piece; the last rollouts are those of `generate`."""
  args = engine, params, rows, budget, key, bucket
  run = lambda program, *carry: compiled(program, engine.compiler)(*args, *carry)
  shards = 1 if engine.mesh is None else batch_shards(engine.mesh)
  count = rows.lengths.size // shards
  cuts = sorted({-(-count * part // 16) for part in (*CUTS, 16)})
  lengths = jobs.cache_lengths(bucket.new) if engine.growing else (bucket.new,)
  slots = run(start_stream)
  for length in lengths:
    if length != lengths[0]:
      slots = slots._replace(cache=_grow(slots.cache, length))
    # While the cache is short, few rows are finished: one piece is enough until its last length.
    for until in cuts if length == lengths[-1] else cuts[-1:]:
      slots = run(advance_stream, slots, np.int32(until))  # traced: one program for all cuts
      written = slots._replace(
        prompts=None, cache=None, pages=None
      )  # so that one program serves every length
      piece = Piece(*read_stream(engine, rows, budget, bucket, written))
      if slots.pages is not None and until == cuts[-1]:
        pages = len(jax.tree.leaves(slots.cache)[0]) // shards
        piece = piece._replace(pool=read_pool(engine, slots.pages, rows.lengths.size, pages))
      yield piece


@functools.partial(jax.jit, static_argnames="engine")
def prepare(engine: Engine, params: PyTree) -> PyTree:
  """The sampler's copy: its dtype, a tree per layer, split over tensor and nothing else."""
  mesh = engine.source or engine.mesh
  copy = engine.policy.unstack(params)
  return copy if mesh is None else _constrain(copy, layout(engine.policy, mesh, copy))


def layout(policy: policies.Policy, mesh: Mesh, copy: PyTree) -> PyTree:
  """The shardings of a copy on a mesh."""
  shardings = param_shardings(mesh, policy.copy_axes(copy), copy)
  keep = lambda s: NamedSharding(mesh, P(*(a if a == "tensor" else None for a in s.spec)))
  return jax.tree.map(keep, shardings)


def _work(engine: Engine, work, params, rows: Rows, budget: Budget, key, bucket: Bucket, *carry):
  """`work(job, G, *carry)` on the rows of every shard; `carry` is pairs (value, PartitionSpec)."""

  def shard(params, key, tokens, lengths, caps, index, expected, asked, *carry):
    group = lengths.shape[1]
    flat = lambda x: x.reshape(-1, *x.shape[2:])
    per_row = tokens[..., : bucket.prompt], lengths, caps, core.row_keys(key, index, group)
    job = jobs.plan(
      engine.policy,
      params,
      *map(flat, per_row),
      max_tokens=bucket.new,
      end_ids=engine.end_ids,
      temperature=engine.temperature,
      control=engine.control,
      slots=engine.slots,
      pages=engine.pages,
      group=group if bucket.share else 1,
      cache_dtype=engine.cache_dtype,
      growing=engine.growing,
      expected=None if expected is None else jnp.repeat(expected, group),
      keeps_experts=engine.keeps_experts,
      **jax.tree.map(flat, asked),
    )
    return work(job, group, *carry)

  values, specs = zip(*carry, strict=True) if carry else ((), ())
  run = _over_shards(engine, shard, P(), P(), *[BATCH] * 6, *specs)
  reads = engine.control is not None and engine.control.init_asked is not None
  asked = {"targets": budget.target, "forced": rows.forced} if reads else {}
  per_row = rows.tokens, rows.lengths, caps(rows, budget), rows.index, rows.expected, asked
  return run(params, key, *per_row, *values)


def _over_shards(engine: Engine, work: Callable, *specs) -> Callable:
  """Gives each data shard a queue and a loop of its own; the compiler splits over a tensor axis."""
  if engine.mesh is None:
    return work
  split = engine.mesh.shape["tensor"] > 1
  return jax.shard_map(
    work,
    mesh=engine.mesh,
    in_specs=specs,
    out_specs=BATCH,
    axis_names={"data", "fsdp"} if split else set(engine.mesh.axis_names),
    check_vma=False,
  )


def _lay_out(engine: Engine, s: Slots) -> Slots:
  """The slots in one layout between programs, with the heads of caches split over tensor. Without
  it the compiler might choose another layout for each program, and compile the next one again."""
  if engine.mesh is None:
    return s
  mesh, parts = engine.mesh, engine.mesh.shape["tensor"]
  put = lambda *axes: lambda x: _constrain(x, NamedSharding(mesh, P(*BATCH, *axes)))
  heads = lambda x: put(None if x.shape[1] % parts else "tensor")(x)
  cache, prompts = jax.tree.map(heads, (s.cache, s.prompts and s.prompts.layers))
  s = jax.tree.map(put(), s)
  return s._replace(cache=cache, prompts=s.prompts and s.prompts._replace(layers=prompts))


def _counters(s: Slots, change: Callable) -> Slots:
  """Changes the counters of a shard: between programs they have an axis of shards."""
  if s.pages is not None:
    pages = s.pages._replace(starts=change(s.pages.starts), peak=change(s.pages.peak))
    s = s._replace(pages=pages)
  return s._replace(iteration=change(s.iteration))


def _by_group(tree: PyTree, group: int) -> PyTree:
  return jax.tree.map(lambda x: x.reshape(-1, group, *x.shape[1:]), tree)


def _rollouts(engine: Engine, rows: Rows, budget: Budget, samples: Samples, bucket: Bucket):
  cut = lambda x: x if x is None else jnp.asarray(x)[..., : bucket.prompt]
  rows = dataclasses.replace(rows, tokens=cut(rows.tokens), train_tokens=cut(rows.train_tokens))
  counts = engine.count_forced
  rollouts = assemble(rows, budget, samples, pad_id=engine.pad_id, count_forced=counts)
  return rollouts if engine.mesh is None else _constrain(rollouts, batch_sharding(engine.mesh))


def caps(rows: Rows, budget: Budget):
  """[B, G], how many tokens may be sampled: the cap without the forced tokens that count."""
  return budget.cap if rows.counts is None else budget.cap - rows.counts


def assemble(
  rows: Rows, budget: Budget, samples: Samples, *, pad_id: int, count_forced: bool = False
) -> Rollouts:
  """Rows to train on: prompt and forced prefix, then the response, then padding.

  Args:
    rows: [B, G, P].
    budget: of these rows.
    samples: leaves [B, G] and [B, G, N].
    pad_id: stands behind the responses.
    count_forced: lengths count what a control forced.
  Returns: Rollouts with T = P + N, all WRONG until verified.
  """
  trained = rows.train_tokens is not None
  tokens = jnp.asarray(rows.train_tokens if trained else rows.tokens)
  starts = jnp.asarray(rows.train_lengths if trained else rows.lengths)[..., None]
  new = samples.tokens.shape[-1]
  at = jax.lax.broadcasted_iota(jnp.int32, (1, 1, tokens.shape[-1] + new), 2)
  prompt, at = at < starts, at - starts
  written = (at >= 0) & (at < samples.lengths[..., None])
  take = lambda x: jnp.take_along_axis(x, jnp.clip(at, 0, new - 1), axis=-1)
  drawn = written & take(samples.mask)
  counts = 0 if rows.counts is None else jnp.asarray(rows.counts)[..., None]
  mask = drawn | (prompt & (at >= -counts))
  by_control = written & ~drawn
  counted = mask | by_control if count_forced else mask
  tokens = jnp.pad(tokens, ((0, 0), (0, 0), (0, new)))
  tokens = jnp.where(prompt, tokens, jnp.where(written, take(samples.tokens), pad_id))
  shape, signals = starts.shape[:2], {}
  if (experts := samples.experts) is not None:
    chosen = jnp.take_along_axis(experts, jnp.clip(at, 0, new - 1)[..., None, None], axis=2)
    signals[CHOSEN] = jnp.where(written[..., None, None], chosen, -1)
  return Rollouts(
    tokens=tokens,
    mask=mask,
    sampler_log_probs=jnp.where(drawn, take(samples.log_probs), 0.0),
    lengths=counted.sum(axis=-1, dtype=jnp.int32),
    truncated=samples.truncated,
    scores=jnp.zeros(shape, jnp.float32),
    correct=jnp.zeros(shape, bool),
    outcome=jnp.full(shape, Outcome.WRONG, jnp.int8),
    valid=jnp.ones(shape, bool),
    prompt_ids=jnp.asarray(rows.prompt_ids),
    difficulty=jnp.asarray(rows.difficulty),
    budget=jax.tree.map(jnp.asarray, budget),
    signals=signals,
    undrawn=None if rows.counts is None else mask & ~drawn,
    forced=by_control if count_forced or samples.cut is not None else None,
    end=samples.end,
    thinking_cut=samples.cut,
  )


_constrain = jax.lax.with_sharding_constraint

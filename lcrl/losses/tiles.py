"""Both passes of `log_probs`, one tile of logits at a time: some tokens by some of the vocabulary.

The forward pass keeps running sums over the vocabulary and saves one log-normaliser a token; the
backward pass computes each tile again. Hidden states are [R, S, D] here: R is never cut, so that it
may be sharded over devices. Below, z = logits / temperature and p = softmax(z).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lcrl.types import TokenScores

_FLOOR = -1e30  # logit of an entry that does not count: exp is 0, and unlike -inf so is 0 * it


class Settings(NamedTuple):
  """Everything static."""

  needs: tuple[str, ...]
  temperature: float
  soft_cap: float | None
  token_chunk: int
  vocab_chunk: int
  vocab_size: int
  mesh: Mesh | None = None  # None: not split by hand
  vocab_axis: str | None = None
  batch_axes: tuple[str, ...] = ()
  keep: bool = False  # the backward pass reads what `Kept` says, and multiplies once less

  def only(self, field: str, x):
    return x if field in self.needs else None

  def left(self, hidden, count: int, width: int, columns: int) -> Kept | None:
    """Room for what `count` tiles leave."""
    if not self.keep:
      return None
    shape = (count, hidden.shape[0], width)
    return Kept(jax.lax.empty((*shape, columns), hidden.dtype), jnp.zeros(shape, _wide(hidden)))


class Sums(NamedTuple):
  """Sums over part of the vocabulary, [R, C] each."""

  peak: jax.Array  # max z
  total: jax.Array  # sum exp(z - peak)
  logit: jax.Array  # the target's logit, or 0 while it has not come by
  weighted: jax.Array | None  # sum (z - peak) exp(z - peak)
  squares: jax.Array | None  # sum exp(z - peak)^2

  def at(self, peak) -> Sums:
    """The same sums relative to another peak."""
    shift = self.peak - peak
    scale = jnp.exp(shift)
    weighted = None if self.weighted is None else scale * (self.weighted + shift * self.total)
    squares = None if self.squares is None else scale**2 * self.squares
    return Sums(peak, scale * self.total, self.logit, weighted, squares)

  def join(self, other: Sums) -> Sums:
    """Over both parts."""
    peak = jnp.maximum(self.peak, other.peak)
    both = jax.tree.map(jnp.add, self.at(peak), other.at(peak))
    return both._replace(peak=peak)


class Kept(NamedTuple):
  """What the forward pass leaves of N tiles, all tiles of a chunk of tokens after each other."""

  exps: jax.Array  # [N, R, C, columns] exp(z - peak), in hidden's dtype
  peaks: jax.Array  # [N, R, C]

  def put(self, index, exps, peak) -> Kept:
    """`exps` of all tiles and the peaks of this one."""
    return Kept(exps, jax.lax.dynamic_update_index_in_dim(self.peaks, peak, index, 0))

  def at(self, index, log_sum):
    """p of a tile."""
    exps, peak = (jax.lax.dynamic_index_in_dim(x, index, keepdims=False) for x in self)
    return exps.astype(peak.dtype) * jnp.exp(peak[..., None] - log_sum)


def forward(
  settings: Settings, hidden, head, targets, mask
) -> tuple[TokenScores, jax.Array, Kept | None]:
  """-> scores, log sum exp z, what the backward pass may read; [R, S] each, 0 where masked."""
  width, windows, columns, tiles = _cuts(settings, hidden, head)
  zeros = vary(jnp.zeros(targets.shape, _wide(hidden)), varying(hidden))
  head = head.astype(hidden.dtype)  # once: in the loop it would keep the product from cuBLAS
  left = settings.left(hidden, len(windows[0]) * len(tiles[0]), width, columns)
  left = jax.tree.map(lambda x: vary(x, varying(head)), left)

  def chunk(carry, inputs):
    (results, left), (number, window) = carry, inputs
    h, target, kept = (_take(x, window[0], width) for x in (hidden, targets, mask))

    def tile(carry, inputs):
      (sums, left), (index, window) = carry, inputs
      logits, _, counts, hit = _logits(settings, h, head, target, columns, *window)
      z = jnp.where(counts, logits / settings.temperature, _FLOOR)
      logit = jnp.where(hit, logits, 0)
      if left is None:
        return (sums.join(_sum(settings, z, logit)), None), None
      place = jnp.stack([index, _first(settings, head) + window[0], window[1]])
      found, left = _sum_and_keep(settings, left, place, logits, target, z, logit)
      return (sums.join(found), left), None

    zero = vary(jnp.zeros(kept.shape, zeros.dtype), varying(head))
    sums = Sums(
      zero + _FLOOR, zero, zero, settings.only("entropy", zero), settings.only("log_sum_sq", zero)
    )
    indices = number * len(tiles[0]) + jnp.arange(len(tiles[0]))
    (sums, left), _ = jax.lax.scan(tile, (sums, left), (indices, tiles))
    if settings.vocab_axis:
      peak = jax.lax.pmax(sums.peak, settings.vocab_axis)
      sums = jax.lax.psum(sums.at(peak), settings.vocab_axis)._replace(peak=peak)

    log_total = jnp.log(sums.total)
    log_sum = sums.peak + log_total
    scores = TokenScores(
      sums.logit / settings.temperature - log_sum,
      None if sums.weighted is None else log_total - sums.weighted / sums.total,
      None if sums.squares is None else jnp.log(sums.squares) - 2 * log_total,
      settings.only("logits_at", sums.logit),
    )
    put = lambda all_, x: jax.lax.dynamic_update_slice_in_dim(
      all_, jnp.where(kept, x, 0), window[0], axis=1
    )
    return (jax.tree.map(put, results, (scores, log_sum)), left), None

  fields = (settings.only(field, zeros) for field in ("entropy", "log_sum_sq", "logits_at"))
  results = TokenScores(zeros, *fields), zeros
  chunks = jnp.arange(len(windows[0])), windows
  (results, left), _ = jax.lax.scan(chunk, (results, left), chunks)
  return *results, left


def backward(
  settings: Settings, hidden, head, targets, mask, scores, log_sum, left, g: TokenScores
):
  """-> gradients of hidden and head. With g the cotangents, H entropy and Q log_sum_sq,

  d/dz = g_log_prob (hit - p) - g_H p (log p + H) + 2 g_Q (p^2 / exp(Q) - p)
       = g_log_prob hit + p (a + b log p + c p)
  """
  width, windows, columns, tiles = _cuts(settings, hidden, head)
  wide, dtype, head = _wide(hidden), head.dtype, head.astype(hidden.dtype)
  zeros = vary(jnp.zeros(targets.shape, wide), varying(hidden))
  a, b, c, at = -g.log_probs, zeros, zeros, zeros
  if g.entropy is not None:
    a, b = a - g.entropy * scores.entropy, -g.entropy
  if g.log_sum_sq is not None:
    a, c = a - 2 * g.log_sum_sq, 2 * g.log_sum_sq * jnp.exp(-scores.log_sum_sq)
  if g.logits_at is not None:
    at = g.logits_at
  per_token = jnp.stack([a, b, c, at, g.log_probs, log_sum], axis=-1)

  def chunk(carry, inputs):
    (dhidden, dhead), (number, (start, seen)) = carry, inputs
    h, target, kept, rest = (_take(x, start, width) for x in (hidden, targets, mask, per_token))
    fresh = (kept & (jnp.arange(width) >= seen)[None])[..., None]
    h = jnp.where(fresh, h, 0)
    a, b, c, at, hit_weight, log_sum = jnp.split(jnp.where(fresh, rest, 0), 6, axis=-1)

    def tile(carry, inputs):
      (dh, dhead), (index, window) = carry, inputs
      if left is None:
        logits, piece, counts, hit = _logits(settings, h, head, target, columns, *window)
        log_p = jnp.where(counts, logits / settings.temperature - log_sum, _FLOOR)
        p = jnp.exp(log_p)
      else:
        piece = _take(head, window[0], columns)
        counts, hit = _places(settings, head, target, columns, *window)
        p = jnp.where(fresh, left.at(index, log_sum), 0)
        log_p = logits = jnp.zeros_like(p)  # b and c are 0
      d = (jnp.where(hit, hit_weight, 0) + p * (a + b * log_p + c * p)) / settings.temperature
      d = d + jnp.where(hit, at, 0)
      if settings.soft_cap is not None:
        d = d * (1 - (logits / settings.soft_cap) ** 2)
      d = jnp.where(counts, d, 0).astype(h.dtype)
      dh = dh + jnp.einsum("rcv,dv->rcd", d, piece, preferred_element_type=wide)
      more = jnp.einsum("rcd,rcv->dv", h, d, preferred_element_type=wide)
      return (dh, _add(dhead, more, window[0])), None

    indices = number * len(tiles[0]) + jnp.arange(len(tiles[0]))
    dh = vary(jnp.zeros(h.shape, wide), varying(head))
    (dh, dhead), _ = jax.lax.scan(tile, (dh, dhead), (indices, tiles))
    if settings.vocab_axis:
      dh = jax.lax.psum(dh, settings.vocab_axis)
    return (_add(dhidden, dh, start), dhead), None

  # With one chunk of tokens on one device every column is complete at once: rounding then is exact.
  once = len(windows[0]) == 1 and not settings.batch_axes
  dhead = jnp.zeros(head.shape, dtype if once else jnp.promote_types(dtype, wide))
  dhead = vary(dhead, varying(head))
  dhidden = vary(jnp.zeros_like(hidden), varying(hidden))
  chunks = jnp.arange(len(windows[0])), windows
  (dhidden, dhead), _ = jax.lax.scan(chunk, (dhidden, dhead), chunks)
  if settings.batch_axes:
    dhead = jax.lax.psum(dhead, settings.batch_axes)
  return dhidden, dhead.astype(dtype)


def varying(*arrays) -> frozenset[str]:
  """The mesh axes along which any of them differs, as a `jax.shard_map` around it knows; none where
  it does not check (`check_vma=False`), and outside of one."""
  return frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in arrays))


def vary(x, axes: frozenset[str]):
  """`x` as an array that may differ along these axes, as what a loop carries must say it does."""
  new = tuple(sorted(axes - varying(x)))
  return jax.lax.pcast(x, new, to="varying") if new else x


def _sum(settings: Settings, z, logit) -> Sums:
  """Over the last axis; `logit` is 0 but at the target."""
  twice = lambda *terms: _sum_twice(settings, *terms)[0]
  return jax.lax.platform_dependent(z, logit, cuda=partial(_sum_once, settings), default=twice)


def _sum_once(settings: Settings, z, logit) -> Sums:
  """Reads the tile once: its peak and what is relative to it grow together."""
  one, zero = jnp.ones_like(z), jnp.zeros_like(z)
  terms = Sums(z, one, logit, settings.only("entropy", zero), settings.only("log_sum_sq", one))
  floor, none = z.dtype.type(_FLOOR), z.dtype.type(0)
  start = Sums(floor, none, none, settings.only("entropy", none), settings.only("log_sum_sq", none))
  return jax.lax.reduce(terms, start, Sums.join, (z.ndim - 1,))


def _sum_twice(settings: Settings, z, logit) -> tuple[Sums, jax.Array]:
  """And exp(z - peak)."""
  peak = z.max(-1)
  z = z - peak[..., None]
  e = jnp.exp(z)
  weighted, squares = settings.only("entropy", z * e), settings.only("log_sum_sq", e * e)
  terms = Sums(z, e, logit, weighted, squares)
  return jax.tree.map(lambda x: x.sum(-1), terms)._replace(peak=peak), e


def _sum_and_keep(
  settings: Settings, left: Kept, place, logits, target, z, logit
) -> tuple[Sums, Kept]:
  """`place`: the tile's in `left`, its first token, columns that count elsewhere, [3]."""

  def once(left, place, logits, target, z, logit):
    del z
    from lcrl.losses import triton_tiles  # loads more than jax

    peak, total, logit, exps = triton_tiles.keep(
      logits,
      target,
      place,
      left.exps,
      temperature=settings.temperature,
      vocab_size=settings.vocab_size,
      floor=_FLOOR,
    )
    return Sums(peak, total, logit, None, None), left.put(place[0], exps, peak)

  def twice(left, place, logits, target, z, logit):
    del logits, target
    sums, e = _sum_twice(settings, z, logit)
    exps = jax.lax.dynamic_update_index_in_dim(left.exps, e.astype(left.exps.dtype), place[0], 0)
    return sums, left.put(place[0], exps, sums.peak)

  args = left, place, logits, target, z, logit
  return jax.lax.platform_dependent(*args, cuda=once, default=twice)


def _logits(settings: Settings, hidden, head, targets, columns: int, start, seen):
  """Logits of a tile [R, C, columns], its part of head, which entries count here, and the hits."""
  piece = _take(head, start, columns)
  logits = jnp.einsum("rcd,dv->rcv", hidden, piece, preferred_element_type=_wide(hidden))
  if settings.soft_cap is not None:
    logits = settings.soft_cap * jnp.tanh(logits / settings.soft_cap)
  return logits, piece, *_places(settings, head, targets, columns, start, seen)


def _places(settings: Settings, head, targets, columns: int, start, seen):
  """[.., columns] which entries of a tile count in it, and which are targets."""
  index = jnp.arange(columns)[None, None]
  token = _first(settings, head) + start + index
  counts = (index >= seen) & (token < settings.vocab_size)
  return counts, counts & (token == targets[..., None])


def _first(settings: Settings, head):
  """The first of this device's entries of the vocabulary."""
  return jax.lax.axis_index(settings.vocab_axis) * head.shape[1] if settings.vocab_axis else 0


def _cuts(settings: Settings, hidden, head):
  """Chunks of tokens along S, tiles of the vocabulary along V (multiples of 128 if large)."""
  tokens = windows(hidden.shape[1], max(1, settings.token_chunk // hidden.shape[0]))
  align = 1 if settings.vocab_chunk % 128 else 128
  return *tokens, *windows(head.shape[1], settings.vocab_chunk, align=align)


def windows(size: int, chunk: int, *, align: int = 1):
  """Equal windows over an axis -> (width, (starts, positions that the window before has seen)).

  >>> print(*windows(10, 4))
  4 (array([0, 4, 6], dtype=int32), array([0, 0, 2], dtype=int32))
  """
  count = -(-size // chunk)
  width = min(size, align * -(-size // (align * count)))
  nominal = np.arange(count, dtype=np.int32) * np.int32(width)
  starts = np.minimum(nominal, np.int32(size - width))
  return width, (starts, nominal - starts)


def _take(x, start, width: int):
  return jax.lax.dynamic_slice_in_dim(x, start, width, axis=1)


def _add(x, more, start):
  """x with `more` added to a window."""
  window = _take(x, start, more.shape[1]) + more.astype(x.dtype)
  return jax.lax.dynamic_update_slice_in_dim(x, window, start, axis=1)


def _wide(x):
  return jnp.promote_types(x.dtype, jnp.float32)

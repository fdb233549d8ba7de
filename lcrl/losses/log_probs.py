"""Log-probabilities of tokens from hidden states, never holding logits for all of them.

One tile exists at a time: some tokens by some of the vocabulary. The forward pass keeps running
sums over the vocabulary and saves one log-normaliser a token; the backward pass computes each tile
again.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from lcrl.types import TokenScores

FIELDS = ("log_probs", "entropy", "log_sum_sq", "logits_at")
_FLOOR = -1e30  # logit of an entry that does not exist: exp is 0, and unlike -inf so is 0 * it


class _How(NamedTuple):
  """Everything static."""

  needs: tuple[str, ...]
  temperature: float
  soft_cap: float | None
  token_chunk: int
  vocab_chunk: int
  vocab_size: int
  mesh: Mesh | None = None
  vocab_axis: str | None = None
  batch_axes: tuple[str, ...] = ()


def score_tokens(
  hidden: jax.Array,
  head: jax.Array,
  targets: jax.Array,
  mask: jax.Array | None = None,
  *,
  needs: tuple[str, ...] = ("log_probs",),
  temperature: float = 1.0,
  soft_cap: float | None = None,
  vocab_size: int | None = None,
  token_chunk: int = 8192,
  vocab_chunk: int = 8192,
) -> TokenScores:
  """What the policy says about the targets, differentiable in hidden and head.

    logits = soft_cap * tanh(hidden @ head / soft_cap)      p = softmax(logits / temperature)
    log_probs = log p[target]       entropy = -sum p log p (nats)
    log_sum_sq = log sum p^2        logits_at = logits[target]

  Products in hidden's dtype, sums and results in float32 or wider. The first axis of several is
  never cut, so it may be sharded over devices; under a sharded vocabulary, or where many devices
  share the tokens, `score_tokens_sharded` communicates less.

  Args:
    hidden: [..., D] final hidden states.
    head: [D, V] output projection.
    targets: [...] int, the token to score at each position.
    mask: [...] bool; elsewhere results are 0 and hidden may be anything, nan included.
    needs: the fields to compute besides log_probs: "entropy", "log_sum_sq", "logits_at".
    temperature: of the distribution.
    soft_cap: bound on the logits, None for none.
    vocab_size: columns of head from here on are padding; None for V.
    token_chunk: tokens in a tile.
    vocab_chunk: vocabulary entries in a tile. A float32 tile of the default size takes 256 MiB.
  Returns: `TokenScores` with [...] float fields.

  >>> scores = score_tokens(jnp.zeros((2, 3)), jnp.ones((3, 4)), jnp.array([0, 3]))
  >>> print(jnp.exp(scores.log_probs))
  [0.25 0.25]
  """
  how = _How(needs, temperature, soft_cap, token_chunk, vocab_chunk, vocab_size or head.shape[-1])
  return _checked(how, hidden, head, targets, mask, rows=1)


def score_tokens_sharded(
  hidden: jax.Array,
  head: jax.Array,
  targets: jax.Array,
  mask: jax.Array | None = None,
  *,
  mesh: Mesh,
  axis: str = "tensor",
  batch_axes: tuple[str, ...] = ("data", "fsdp"),
  needs: tuple[str, ...] = ("log_probs",),
  temperature: float = 1.0,
  soft_cap: float | None = None,
  vocab_size: int | None = None,
  token_chunk: int = 8192,
  vocab_chunk: int = 8192,
) -> TokenScores:
  """`score_tokens` split by hand: V of head over `axis`, the first axis of hidden over batch_axes.

  No device sees another's tokens or columns; the sums over the vocabulary and the gradients are
  added up once. V must divide over `axis`: pad head and state the true `vocab_size`. Chunks count
  what is on one device.
  """
  how = _How(
    needs, temperature, soft_cap, token_chunk, vocab_chunk, vocab_size or head.shape[-1],
    mesh, axis, tuple(batch_axes),
  )  # fmt: skip
  shards = int(np.prod([mesh.shape[name] for name in batch_axes], dtype=int))
  if head.shape[-1] % mesh.shape[axis]:
    raise ValueError(f"head {head.shape} does not divide over {mesh.shape[axis]} {axis!r} devices.")
  if hidden.shape[0] % shards:
    raise ValueError(f"hidden {hidden.shape} does not divide over {shards} {batch_axes} devices.")
  return _checked(how, hidden, head, targets, mask, rows=shards)


def _checked(how: _How, hidden, head, targets, mask, *, rows: int) -> TokenScores:
  """The checks, and [..., D] as [R, S, D]: R is the first of several axes, or `rows`."""
  if unknown := set(how.needs) - set(FIELDS):
    raise ValueError(f"needs must be among {FIELDS}, got {sorted(unknown)}.")
  if mask is None:
    mask = jnp.ones(targets.shape, bool)
  if not hidden.shape[:-1] == targets.shape == mask.shape:
    raise ValueError(
      "hidden without its last axis, targets and mask must share a shape, got "
      f"{hidden.shape[:-1]}, {targets.shape} and {mask.shape}."
    )
  if head.ndim != 2 or head.shape[0] != hidden.shape[-1]:
    raise ValueError(f"head must be [{hidden.shape[-1]}, V] for this hidden, got {head.shape}.")
  if not 1 <= how.vocab_size <= head.shape[1]:
    raise ValueError(f"vocab_size must be in 1..{head.shape[1]}, got {how.vocab_size}.")
  for name in ("temperature", "soft_cap", "token_chunk", "vocab_chunk"):
    value = getattr(how, name)
    if value is not None and not value > 0:
      raise ValueError(f"{name} must be positive, got {value}.")
  shape = targets.shape
  rows = shape[0] if len(shape) > 1 else rows
  hidden = hidden.reshape(rows, -1, hidden.shape[-1])
  scores = _scores(how, hidden, head, targets.reshape(rows, -1), mask.reshape(rows, -1))
  return jax.tree.map(lambda x: x.reshape(shape), scores)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(how, hidden, head, targets, mask):
  return _scores_forward(how, hidden, head, targets, mask)[0]


def _scores_forward(how, hidden, head, targets, mask):
  rows, columns = P(how.batch_axes), P(None, how.vocab_axis)
  spread = _spread(how, (rows, columns, rows, rows), (rows, rows))
  scores, log_sum = spread(functools.partial(_forward, how))(hidden, head, targets, mask)
  return scores, (hidden, head, targets, mask, scores, log_sum)


def _scores_backward(how, residuals, cotangents):
  rows, columns = P(how.batch_axes), P(None, how.vocab_axis)
  spread = _spread(how, (rows, columns, rows, rows, rows, rows, rows), (rows, columns))
  return *spread(functools.partial(_backward, how))(*residuals, cotangents), None, None


_scores.defvjp(_scores_forward, _scores_backward)


def _spread(how: _How, in_specs, out_specs):
  if how.mesh is None:
    return lambda f: f
  return functools.partial(
    jax.shard_map, mesh=how.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
  )


class _Sums(NamedTuple):
  """Sums over part of the vocabulary, with z = logits / temperature; [R, C] each."""

  peak: jax.Array  # max z
  total: jax.Array  # sum exp(z - peak)
  logit: jax.Array  # logits[target], or 0 if the target is elsewhere
  weighted: jax.Array | None  # sum (z - peak) exp(z - peak)
  squares: jax.Array | None  # sum exp(z - peak)^2


def _rescaled(sums: _Sums, peak) -> _Sums:
  shift = sums.peak - peak
  scale = jnp.exp(shift)
  return sums._replace(
    peak=peak,
    total=scale * sums.total,
    weighted=None if sums.weighted is None else scale * (sums.weighted + shift * sums.total),
    squares=None if sums.squares is None else scale**2 * sums.squares,
  )


def _added(a: _Sums, b: _Sums) -> _Sums:
  peak = jnp.maximum(a.peak, b.peak)
  total = jax.tree.map(jnp.add, _rescaled(a, peak), _rescaled(b, peak))
  return total._replace(peak=peak)


def _forward(how: _How, hidden, head, targets, mask):
  """-> (TokenScores, log sum exp z), [R, S] each."""
  width, windows = _windows(hidden.shape[1], max(1, how.token_chunk // hidden.shape[0]))
  columns, tiles = _windows(head.shape[1], how.vocab_chunk, align=128)
  zero = jnp.zeros(targets.shape, _wide(hidden))

  def chunk(out, window):
    start, _ = window
    h, target, kept = (_take(x, start, width, 1) for x in (hidden, targets, mask))
    h = jnp.where(kept[..., None], h, 0)

    def tile(sums, window):
      logits, _, exists, hit = _logits(how, h, head, target, columns, *window)
      z = jnp.where(exists, logits / how.temperature, _FLOOR)
      peak = jax.lax.stop_gradient(z.max(-1))
      z = z - peak[..., None]
      e = jnp.exp(z)
      more = _Sums(
        peak,
        e.sum(-1),
        jnp.where(hit, logits, 0).sum(-1),
        (z * e).sum(-1) if "entropy" in how.needs else None,
        (e * e).sum(-1) if "log_sum_sq" in how.needs else None,
      )
      return _added(sums, more), None

    none = jnp.zeros(kept.shape, zero.dtype)
    sums, _ = jax.lax.scan(
      tile,
      _Sums(
        none + _FLOOR,
        none,
        none,
        none if "entropy" in how.needs else None,
        none if "log_sum_sq" in how.needs else None,
      ),
      tiles,
    )
    if how.vocab_axis:
      peak = jax.lax.pmax(sums.peak, how.vocab_axis)
      sums = jax.lax.psum(_rescaled(sums, peak), how.vocab_axis)._replace(peak=peak)
    log_total = jnp.log(sums.total)
    log_sum = sums.peak + log_total
    piece = TokenScores(
      sums.logit / how.temperature - log_sum,
      None if sums.weighted is None else log_total - sums.weighted / sums.total,
      None if sums.squares is None else jnp.log(sums.squares) - 2 * log_total,
      sums.logit if "logits_at" in how.needs else None,
    )
    put = lambda all_, x: jax.lax.dynamic_update_slice_in_dim(
      all_, jnp.where(kept, x, 0), start, axis=1
    )
    return jax.tree.map(put, out, (piece, log_sum)), None

  out = TokenScores(zero, *(zero if name in how.needs else None for name in FIELDS[1:]))
  return jax.lax.scan(chunk, (out, zero), windows)[0]


def _backward(how: _How, hidden, head, targets, mask, scores, log_sum, cotangents):
  """-> gradients of hidden and head. With g the cotangents, H entropy and Q log_sum_sq,

  d/dz = g_log_prob (hit - p) - g_H p (log p + H) + 2 g_Q (p^2 / exp(Q) - p)
       = g_log_prob hit + p (a + b log p + c p)
  """
  width, windows = _windows(hidden.shape[1], max(1, how.token_chunk // hidden.shape[0]))
  columns, tiles = _windows(head.shape[1], how.vocab_chunk, align=128)
  wide = _wide(hidden)
  g, zero = cotangents, jnp.zeros(targets.shape, wide)
  a, b, c = -g.log_probs, zero, zero
  if g.entropy is not None:
    a, b = a - g.entropy * scores.entropy, -g.entropy
  if g.log_sum_sq is not None:
    a, c = a - 2 * g.log_sum_sq, 2 * g.log_sum_sq * jnp.exp(-scores.log_sum_sq)
  at = zero if g.logits_at is None else g.logits_at

  def chunk(carry, window):
    dhidden, dhead = carry
    start, seen = window
    take = lambda x: _take(x, start, width, 1)
    fresh = take(mask) & (jnp.arange(width) >= seen)[None]
    h, target = jnp.where(fresh[..., None], take(hidden), 0), take(targets)
    per_token = lambda x: jnp.where(fresh, take(x), 0)[..., None]
    a_, b_, c_, at_, g_, log_sum_ = map(per_token, (a, b, c, at, g.log_probs, log_sum))

    def tile(carry, window):
      dh, dhead = carry
      logits, piece, exists, hit = _logits(how, h, head, target, columns, *window)
      log_p = jnp.where(exists, logits / how.temperature - log_sum_, _FLOOR)
      p = jnp.exp(log_p)
      d = (jnp.where(hit, g_, 0) + p * (a_ + b_ * log_p + c_ * p)) / how.temperature
      d = d + jnp.where(hit, at_, 0)
      if how.soft_cap is not None:
        d = d * (1 - (logits / how.soft_cap) ** 2)
      d = jnp.where(exists, d, 0).astype(h.dtype)
      dh = dh + jnp.einsum("rcv,dv->rcd", d, piece, preferred_element_type=wide)
      more = jnp.einsum("rcd,rcv->dv", h, d, preferred_element_type=wide)
      return (dh, _accumulated(dhead, more, window[0], 1)), None

    (dh, dhead), _ = jax.lax.scan(tile, (jnp.zeros(h.shape, wide), dhead), tiles)
    if how.vocab_axis:
      dh = jax.lax.psum(dh, how.vocab_axis)
    return (_accumulated(dhidden, dh, start, 1), dhead), None

  # One chunk and one device add nothing to a column twice: round its gradient once, right away.
  once = len(windows[0]) == 1 and how.mesh is None
  dhead = jnp.zeros(head.shape, head.dtype if once else jnp.promote_types(head.dtype, wide))
  (dhidden, dhead), _ = jax.lax.scan(chunk, (jnp.zeros_like(hidden), dhead), windows)
  if how.batch_axes:
    dhead = jax.lax.psum(dhead, how.batch_axes)
  return dhidden, dhead.astype(head.dtype)


def _logits(how: _How, hidden, head, targets, columns, start, seen):
  """Logits of a tile [R, C, columns], its part of head, which entries count here, the hits."""
  piece = _take(head, start, columns, 1).astype(hidden.dtype)
  logits = jnp.einsum("rcd,dv->rcv", hidden, piece, preferred_element_type=_wide(hidden))
  if how.soft_cap is not None:
    logits = how.soft_cap * jnp.tanh(logits / how.soft_cap)
  first = jax.lax.axis_index(how.vocab_axis) * head.shape[1] if how.vocab_axis else 0
  index = jnp.arange(columns)
  token = first + start + index
  exists = ((index >= seen) & (token < how.vocab_size))[None, None]
  return logits, piece, exists, exists & (token[None, None] == targets[..., None])


def _windows(size: int, chunk: int, align: int = 1):
  """Equal windows that cover an axis -> (width, (starts, positions seen in the window before)).

  >>> width, (starts, seen) = _windows(10, 4)
  >>> print(width, starts, seen)
  4 [0 4 6] [0 0 2]
  """
  count = -(-size // chunk)
  align = 1 if chunk % align else align
  width = min(size, align * -(-size // (align * count)))
  starts = np.minimum(np.arange(count) * width, size - width).astype(np.int32)
  return width, (starts, (np.arange(count) * width - starts).astype(np.int32))


def _take(x, start, width: int, axis: int):
  return jax.lax.dynamic_slice_in_dim(x, start, width, axis)


def _accumulated(x, more, start, axis: int):
  """x with `more` added at a window."""
  sum_ = _take(x, start, more.shape[axis], axis) + more.astype(x.dtype)
  return jax.lax.dynamic_update_slice_in_dim(x, sum_, start, axis)


def _wide(x):
  return jnp.promote_types(x.dtype, jnp.float32)

"""Log-probabilities of tokens from hidden states, never holding logits for all of them."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from lcrl.checks import typed
from lcrl.losses import tiles
from lcrl.sharding import left_to_xla
from lcrl.types import TokenScores

__all__ = ["score_tokens", "score_tokens_sharded"]

FIELDS = ("log_probs", "entropy", "log_sum_sq", "logits_at")


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
  keep: bool = False,
  axis_name: str | None = None,
) -> TokenScores:
  """What the policy says about the targets, differentiable in hidden and head.

    logits = soft_cap * tanh(hidden @ head / soft_cap)      p = softmax(logits / temperature)
    log_probs = log p[target]       entropy = -sum p log p (nats)
    log_sum_sq = log sum p^2        logits_at = logits[target]

  Products are computed in hidden's dtype, sums and results in float32 or wider. The first of
  several axes is never cut, so it may be sharded; with a sharded vocabulary, or with many devices
  sharing the tokens, `score_tokens_sharded` communicates less.

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
    vocab_chunk: vocabulary entries in a tile; a float32 tile of the default size takes 256 MiB.
    keep: the forward pass leaves exp(logit - peak) in hidden's dtype, [..., V] after all, and the
      backward pass multiplies three times instead of four. Gradients need them in that dtype
      anyway. Not with needs of other probabilities than the target's, nor with soft_cap.
    axis_name: inside `jax.shard_map`, the mesh axis that cuts head's columns; targets and
      vocab_size count those of all devices along it, and hidden is alike there. None: it is whole.
  Returns: `TokenScores` with [...] float fields.

  >>> scores = score_tokens(jnp.zeros((2, 3)), jnp.ones((3, 4)), jnp.array([0, 3]))
  >>> print(jnp.exp(scores.log_probs))
  [0.25 0.25]
  """
  typed(hidden=hidden, head=head, targets=targets)
  columns = head.shape[-1] * (1 if axis_name is None else jax.lax.axis_size(axis_name))
  settings = tiles.Settings(
    needs,
    temperature,
    soft_cap,
    token_chunk,
    vocab_chunk,
    columns if vocab_size is None else vocab_size,
    vocab_axis=axis_name,
    keep=keep,
  )
  return _checked(settings, hidden, head, targets, mask, rows=1, columns=columns)


def score_tokens_sharded(
  hidden: jax.Array,
  head: jax.Array,
  targets: jax.Array,
  mask: jax.Array | None = None,
  *,
  mesh: Mesh,
  axis: str = "tensor",
  batch_axes: tuple[str, ...] = ("data", "fsdp"),
  vocab_size: int | None = None,
  needs: tuple[str, ...] = ("log_probs",),
  temperature: float = 1.0,
  soft_cap: float | None = None,
  token_chunk: int = 8192,
  vocab_chunk: int = 8192,
  keep: bool = False,
) -> TokenScores:
  """`score_tokens` split by hand: V of head over `axis`, the first axis of hidden over batch_axes.

  hidden [..., D], head [D, V], targets [...] -> `TokenScores` of [...] each.

  No device sees another's tokens or columns: sums over the vocabulary and gradients are added up
  once. V must divide over `axis` (pad head, state the true vocab_size). Chunks count what lies on
  one device.

  >>> from lcrl.mesh import make_mesh
  >>> mesh = make_mesh(devices=jax.devices()[:1])
  >>> hidden, head, targets = jnp.eye(2)[None], 2 * jnp.eye(2), jnp.array([[0, 0]])
  >>> put = lambda x, *axes: jax.device_put(x, jax.NamedSharding(mesh, jax.P(*axes)))
  >>> hidden, targets = (put(x, ("data", "fsdp")) for x in (hidden, targets))
  >>> scores = score_tokens_sharded(hidden, put(head, None, "tensor"), targets, mesh=mesh)
  >>> print(scores.log_probs.round(3))
  [[-0.127 -2.127]]
  """
  typed(hidden=hidden, head=head, targets=targets)
  vocab_size = head.shape[-1] if vocab_size is None else vocab_size
  settings = tiles.Settings(
    needs, temperature, soft_cap, token_chunk, vocab_chunk, vocab_size, mesh, axis, batch_axes, keep
  )
  shards = math.prod(mesh.shape[name] for name in batch_axes)
  for name, array, size, parts in (
    ("head", head, head.shape[-1], mesh.shape[axis]),
    ("hidden", hidden, hidden.shape[0], shards),
  ):
    if size % parts:
      raise ValueError(f"{name} {array.shape} cannot be split: {size} in {parts} equal parts.")
  return _checked(settings, hidden, head, targets, mask, rows=shards, columns=head.shape[-1])


def _checked(
  settings: tiles.Settings, hidden, head, targets, mask, *, rows: int, columns: int
) -> TokenScores:
  """Checks, and scores with [...] as [R, S]: R is the first of several axes, else `rows`."""
  if unknown := set(settings.needs) - set(FIELDS):
    raise ValueError(f"needs must be among {FIELDS}, got {sorted(unknown)}.")
  if not jnp.issubdtype(targets.dtype, jnp.integer):
    raise ValueError(f"targets must be integers, ids of tokens, got {targets.dtype}.")
  mask = jnp.ones(targets.shape, bool) if mask is None else mask
  typed(mask=mask)
  if not hidden.shape[:-1] == targets.shape == mask.shape:
    raise ValueError(
      "hidden without its last axis, targets and mask must share a shape, got "
      f"{hidden.shape[:-1]}, {targets.shape} and {mask.shape}."
    )
  if head.ndim != 2 or head.shape[0] != hidden.shape[-1]:
    raise ValueError(f"head must be [{hidden.shape[-1]}, V] for this hidden, got {head.shape}.")
  if not 1 <= settings.vocab_size <= columns:
    raise ValueError(f"vocab_size must be in 1..{columns}, got {settings.vocab_size}.")
  for name in ("temperature", "soft_cap", "token_chunk", "vocab_chunk"):
    value = getattr(settings, name)
    if value is not None and not value > 0:
      raise ValueError(f"{name} must be positive, got {value}.")
  if settings.keep and (
    settings.soft_cap is not None or {"entropy", "log_sum_sq"} & set(settings.needs)
  ):
    raise ValueError(
      f"keep=True serves neither soft_cap={settings.soft_cap} nor needs={settings.needs}."
    )
  rows = targets.shape[0] if targets.ndim > 1 else rows
  score = functools.partial(_by_rows, settings, rows)
  return left_to_xla(score, targets, hidden, head, targets, mask)


def _by_rows(settings: tiles.Settings, rows: int, hidden, head, targets, mask) -> TokenScores:
  hidden, *per_token = (
    x.reshape(rows, -1, *x.shape[targets.ndim :]) for x in (hidden, targets, mask)
  )
  # What differs along a mesh axis meets what does not: said here, so that gradients of the latter
  # are summed along it.
  everywhere = tiles.varying(hidden, head, *per_token)
  beside = everywhere - {settings.vocab_axis}
  if settings.mesh is None and settings.vocab_axis in tiles.varying(hidden, *per_token):
    raise ValueError(
      f"hidden, targets and mask must be alike along axis_name={settings.vocab_axis!r}."
    )
  hidden, *per_token = (tiles.vary(x, beside) for x in (hidden, *per_token))
  scores = _scores(settings, hidden, tiles.vary(head, everywhere), *per_token)
  return jax.tree.map(lambda x: x.reshape(targets.shape), scores)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(settings, hidden, head, targets, mask):
  return _scores_forward(settings._replace(keep=False), hidden, head, targets, mask)[0]


def _scores_forward(settings, hidden, head, targets, mask):
  rows, columns = P(settings.batch_axes), P(None, settings.vocab_axis)
  run = _split(settings, tiles.forward, (rows, columns, rows, rows), (rows, rows, _left(settings)))
  scores, *rest = run(hidden, head, targets, mask)
  return scores, (hidden, head, targets, mask, scores, *rest)


def _scores_backward(settings, residuals, cotangents):
  rows, columns = P(settings.batch_axes), P(None, settings.vocab_axis)
  specs = (rows, columns, *(rows,) * 4, _left(settings), rows)
  run = _split(settings, tiles.backward, specs, (rows, columns))
  return *run(*residuals, cotangents), None, None


_scores.defvjp(_scores_forward, _scores_backward)


def _left(settings: tiles.Settings):
  """Each device's own tiles of its own rows."""
  return P(settings.vocab_axis, settings.batch_axes)


def _split(settings: tiles.Settings, f, in_specs, out_specs):
  f = functools.partial(f, settings)
  if settings.mesh is None:
    return f
  specs = {"in_specs": in_specs, "out_specs": out_specs}
  return jax.shard_map(f, mesh=settings.mesh, check_vma=False, **specs)

"""What changes the next-token distribution. Pure, per row, composable with `chain`.

The functions take logits [..., V], already divided by the temperature, and give logits. Whatever a
control does, the sampler reports log-probs of the policy's own distribution at that temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Asked(NamedTuple):
  """What is asked of R rows."""

  targets: jax.Array  # [R] int32, lengths that rewards compare with
  caps: jax.Array  # [R] int32
  forced: jax.Array  # [R] int32, tokens at the end of a prompt with which its response begins


class Control(NamedTuple):
  """R rows, each with its own slice of the state. All leaves of the state lead with R."""

  init: Callable  # (tokens [R, P], lengths [R]) -> state, before the first token
  # (state, logits [R, V]) -> logits [R, V] to sample from; None: leaves them alone, and `take` may
  # get None for logits.
  shape: Callable | None
  take: Callable  # (state, logits, sampled [R]) -> (state, tokens [R], forced [R] bool)
  sparing: Callable | None = None  # end ids -> the same, which leaves these tokens alone
  # (tokens, lengths, Asked) -> state, in place of `init`.
  init_asked: Callable | None = None
  # state after a token -> [R] int32: 0, or k where the k-th stop text ends the response.
  stops: Callable | None = None
  # state after a token -> [R] bool: the thinking was cut at its budget.
  cut: Callable | None = None
  room: int = 0  # tokens of a response, at least, that it is meant for
  forces: tuple[tuple[int, ...], ...] = ()  # texts that it forces, after which a response goes on


def stateless(shape: Callable) -> Control:
  """A control from a function of the logits [R, V]."""
  return Control(
    init=lambda tokens, lengths: (),
    shape=lambda state, logits: shape(logits),
    take=lambda state, logits, sampled: (state, sampled, jnp.zeros(sampled.shape, bool)),
  )


def sparing(control: Control, end_ids: Sequence[int]) -> Control:
  """A control that leaves the tokens alone that end a response, if it can."""
  return control if control.sparing is None else control.sparing(end_ids)


def plain() -> Control:
  """Changes nothing."""
  return stateless(lambda logits: logits)


def chain(*controls: Control) -> Control:
  """Shapes logits and takes tokens from left to right: what forces tokens stands first.

  Every `take` sees the policy's own logits, not what other controls made of them.
  """

  def init(tokens, lengths):
    return tuple(c.init(tokens, lengths) for c in controls)

  def shape(states, logits):
    for control, state in zip(controls, states, strict=True):
      logits = control.shape(state, logits) if control.shape else logits
    return logits

  def take(states, logits, sampled):
    new, forced = [], jnp.zeros(sampled.shape, bool)
    for control, state in zip(controls, states, strict=True):
      state, sampled, f = control.take(state, logits, sampled)
      new.append(state)
      forced |= f
    return tuple(new), sampled, forced

  def spare(end_ids):
    return chain(*(sparing(control, end_ids) for control in controls))

  def init_asked(tokens, lengths, asked):
    first = lambda c: partial(c.init_asked, asked=asked) if c.init_asked else c.init
    return tuple(first(c)(tokens, lengths) for c in controls)

  def largest(field):
    """The largest of what the controls that have this field read of their states."""
    having = [(i, read) for i, c in enumerate(controls) if (read := getattr(c, field))]
    maximum = lambda states: reduce(jnp.maximum, (read(states[i]) for i, read in having))
    return maximum if having else None

  return Control(
    init,
    shape if any(c.shape for c in controls) else None,
    take,
    spare,
    init_asked if any(c.init_asked for c in controls) else None,
    stops=largest("stops"),
    cut=largest("cut"),
    room=max((c.room for c in controls), default=0),
    forces=tuple(tape for c in controls for tape in c.forces),
  )


def keep_top_k(logits: jax.Array, *, k: int) -> jax.Array:
  """The k largest logits, and all that tie with the smallest of them; the others become -inf.

  >>> print(keep_top_k(jnp.array([1.0, 3.0, 2.0, 2.0]), k=2))
  [-inf   3.   2.   2.]
  """
  _check_top_k(k)
  smallest = jax.lax.top_k(logits, min(k, logits.shape[-1]))[0][..., -1:]
  return jnp.where(logits >= smallest, logits, -jnp.inf)


def keep_top_p(logits: jax.Array, *, p: float) -> jax.Array:
  """The fewest largest probabilities that together pass p (nucleus, arXiv:1904.09751).

  In ascending order a token goes while the sum up to it is at most 1 - p; the largest stays.
  Of equal probabilities the one with the lower id goes first.

  >>> print(keep_top_p(jnp.log(jnp.array([0.25, 0.5, 0.125, 0.125])), p=0.7).round(3))
  [-1.386 -0.693   -inf   -inf]
  """
  _check_top_p(p)
  order = jnp.argsort(logits, axis=-1)
  total = jnp.cumsum(jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1), axis=-1)
  rank = jnp.argsort(order, axis=-1)
  keep = jnp.take_along_axis(total, rank, axis=-1) > 1 - p
  return jnp.where(keep | (rank == logits.shape[-1] - 1), logits, -jnp.inf)


def keep_min_p(logits: jax.Array, *, p: float) -> jax.Array:
  """Tokens at least p times as likely as the most likely one (arXiv:2407.01082).

  >>> print(keep_min_p(jnp.log(jnp.array([0.25, 0.5, 0.125, 0.125])), p=0.3).round(3))
  [-1.386 -0.693   -inf   -inf]
  """
  _check_min_p(p)
  probs = jax.nn.softmax(logits, axis=-1)
  return jnp.where(probs >= p * probs.max(axis=-1, keepdims=True), logits, -jnp.inf)


def _check_top_k(k: int) -> None:
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}.")


def _check_top_p(p: float) -> None:
  if not 0 < p <= 1:
    raise ValueError(f"p must be in (0, 1], got {p}.")


def _check_min_p(p: float) -> None:
  if not 0 <= p <= 1:
    raise ValueError(f"p must be in [0, 1], got {p}.")


def top_k(k: int) -> Control:
  """Samples among the k most likely tokens; equal ones stay together.

  >>> control = top_k(2)
  >>> print(control.shape((), jnp.array([[0.0, 2.0, 1.0]])))
  [[-inf   2.   1.]]
  """
  _check_top_k(k)
  return stateless(lambda logits: keep_top_k(logits, k=k))


def top_p(p: float) -> Control:
  """Samples among the fewest tokens whose probabilities pass p (nucleus, arXiv:1904.09751)."""
  _check_top_p(p)
  return stateless(lambda logits: keep_top_p(logits, p=p))


def min_p(p: float) -> Control:
  """Samples among tokens at least p times as likely as the likeliest (arXiv:2407.01082).

  >>> control = min_p(0.5)
  >>> print(control.shape((), jnp.log(jnp.array([[0.6, 0.3, 0.1]]))).round(2))
  [[-0.51  -inf  -inf]]
  """
  _check_min_p(p)
  return stateless(lambda logits: keep_min_p(logits, p=p))

"""Controls of length at decode time: biases on the tokens that stop, and forced tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lcrl.checks import positive
from lcrl.sampling.controls import Control, stateless


def bias_tokens(logits: jax.Array, bias: Mapping[int, float]) -> jax.Array:
  """Adds a number to the logits of some tokens: odds times exp(bias).

  >>> print(bias_tokens(jnp.zeros(3), {2: 1.5}))
  [0.  0.  1.5]
  """
  ids, values = list(bias), list(bias.values())
  return logits.at[..., ids].add(jnp.array(values, logits.dtype))


def scale_token(logits: jax.Array, token: int, *, scale: float) -> jax.Array:
  """Multiplies one logit. Note that scale > 1 makes a token with a negative logit less likely.

  >>> print(scale_token(jnp.array([1.0, 2.0, -1.0]), 1, scale=2.0))
  [ 1.  4. -1.]
  """
  return logits.at[..., token].multiply(scale)


def token_bias(bias: Mapping[int, float]) -> Control:
  """A constant bias on some tokens, always."""
  return stateless(lambda logits: bias_tokens(logits, bias))


def end_of_thinking_bias(token: int, *, scale: float) -> Control:
  """Odds of ending the thinking times `scale`, until it ends; nothing changes after.

  Source: thinking-phase temperature scaling, arXiv:2505.07961, in an additive form (bias log scale)
  that, unlike theirs, acts alike on positive and negative logits. Stands after the temperature.
  """
  if scale <= 0:
    raise ValueError(f"scale must be above 0, got {scale}.")
  return _while_thinking(token, lambda logits: bias_tokens(logits, {token: math.log(scale)}))


def end_of_thinking_scale(token: int, *, scale: float) -> Control:
  """The logit of ending the thinking times `scale`, until it ends (arXiv:2505.07961).

  The paper's formula could not be verified. `end_of_thinking_bias` is the safer choice.
  """
  return _while_thinking(token, lambda logits: scale_token(logits, token, scale=scale))


def _while_thinking(token: int, change) -> Control:
  """Applies `change` to rows that have not sampled `token` yet; the state says which."""
  return Control(
    init=lambda tokens, lengths: jnp.ones(lengths.shape, bool),
    shape=lambda thinking, logits: jnp.where(thinking[:, None], change(logits), logits),
    take=lambda thinking, logits, sampled: (
      thinking & (sampled != token),
      sampled,
      _never(sampled),
    ),
  )


def ramp_bias(
  position: jax.Array,
  *,
  ramp_end: int = 250,
  max_bias: float = 15.0,
  hold: bool = False,
  hard_length: int = 1024,
  hard_bias: float = 100.0,
) -> jax.Array:
  """A bias that climbs with the length of the response: max_bias * position / ramp_end.

  Source: Hewitt et al. 2024, arXiv:2409.14254, and their code, which falls back to 0 from
  `ramp_end` on. With `hold` it stays at max_bias, and beyond `hard_length` it is hard_bias, as the
  paper describes it.

  Args:
    position: [...] int, response tokens so far.
    ramp_end: where the ramp ends.
    max_bias: its height there.
    hold: what happens after, see above.
    hard_length: with `hold`, the longest response that is not forced to end.
    hard_bias: the bias beyond.

  >>> print(ramp_bias(jnp.array([0, 10, 20]), ramp_end=20, max_bias=5.0))
  [0.  2.5 0. ]
  >>> print(ramp_bias(jnp.array([250, 1025]), hold=True))
  [ 15. 100.]
  """
  positive(ramp_end=ramp_end)
  position = jnp.asarray(position)
  climbing = position < ramp_end
  after = jnp.where(position > hard_length, hard_bias, max_bias) if hold else 0.0
  return jnp.where(climbing, max_bias * position / ramp_end, after)


def eos_ramp(end_id: int, **ramp) -> Control:
  """Makes the end token likelier with every token written; `ramp` as for `ramp_bias`."""
  positive(ramp_end=ramp.get("ramp_end", 1))
  return Control(
    init=lambda tokens, lengths: jnp.zeros(lengths.shape, jnp.int32),
    shape=lambda n, logits: logits.at[:, end_id].add(ramp_bias(n, **ramp).astype(logits.dtype)),
    take=lambda n, logits, sampled: (n + 1, sampled, _never(sampled)),
  )


def repeat_penalty(
  vocab_size: int, *, penalty: float = 1.5, end_ids: Sequence[int] = ()
) -> Control:
  """Subtracts `penalty` once from every token that stands in prompt or response (2409.14254).

  The tokens `end_ids` are spared, in a sampler those that end its responses: a chat template writes
  them into the prompt, and a response would not end.
  """

  def init(tokens, lengths):
    rows = jnp.arange(len(tokens))[:, None]
    real = jnp.arange(tokens.shape[1])[None] < lengths[:, None]
    return jnp.zeros((len(tokens), vocab_size), bool).at[rows, tokens].max(real)

  def shape(seen, logits):
    return logits - penalty * seen.at[:, list(end_ids)].set(False)

  def take(seen, logits, sampled):
    return seen.at[jnp.arange(len(sampled)), sampled].set(True), sampled, _never(sampled)

  def spare(ends):
    return repeat_penalty(vocab_size, penalty=penalty, end_ids=(*end_ids, *ends))

  return Control(init, shape, take, spare)


class Forcing(NamedTuple):
  """Where a row stands under `budget_forcing`."""

  thinking: jax.Array  # [R] bool
  spent: jax.Array  # [R] int32, tokens of thinking, forced ones included
  ignored: jax.Array  # [R] int32, ends of thinking that were refused
  forced: jax.Array  # [R] int32, which token of the tape comes next; -1: the model's own
  cut: jax.Array  # [R] bool, met `max_thinking_tokens`


def budget_forcing(
  end_of_thinking: int,
  *,
  max_thinking_tokens: int,
  min_thinking_tokens: int = 0,
  wait_tokens: Sequence[int] = (),
  num_ignore: int = 0,
  final_tokens: Sequence[int] = (),
) -> Control:
  """Bounds the thinking from both sides by forcing tokens (s1, arXiv:2501.19393).

  The first `num_ignore` times that the model ends its thinking, and whenever it does so before
  `min_thinking_tokens` are spent, `wait_tokens` stand in place of that token. Once
  `max_thinking_tokens` are spent, forced ones included, `end_of_thinking` and `final_tokens`
  follow. Forced tokens are not in the mask.
  """
  if max_thinking_tokens < 1:
    raise ValueError(f"max_thinking_tokens must be at least 1, got {max_thinking_tokens}.")
  if not 0 <= min_thinking_tokens <= max_thinking_tokens:
    raise ValueError(
      f"min_thinking_tokens must lie between 0 and max_thinking_tokens={max_thinking_tokens}, "
      f"got {min_thinking_tokens}."
    )
  if (num_ignore or min_thinking_tokens) and not wait_tokens:
    raise ValueError("num_ignore and min_thinking_tokens need wait_tokens, got none.")
  wait = len(wait_tokens)
  tape = jnp.array([*wait_tokens, end_of_thinking, *final_tokens], jnp.int32)

  def init(tokens, lengths):
    zeros = jnp.zeros(lengths.shape, jnp.int32)
    return Forcing(zeros == 0, spent=zeros, ignored=zeros, forced=zeros - 1, cut=zeros > 0)

  def take(s: Forcing, logits, sampled):
    free = s.thinking & (s.forced < 0)
    full = free & (s.spent >= max_thinking_tokens)
    ends = free & ~full & (sampled == end_of_thinking)
    ignore = ends & ((s.ignored < num_ignore) | (s.spent < min_thinking_tokens))
    at = jnp.where(full, wait, jnp.where(ignore, 0, s.forced))
    forced = at >= 0
    last = (at + 1 == wait) | (at + 1 == len(tape))
    thinking = s.thinking & ~full & ~(ends & ~ignore)
    state = Forcing(
      thinking=thinking,
      spent=s.spent + thinking,
      ignored=s.ignored + ignore,
      forced=jnp.where(forced & ~last, at + 1, -1),
      cut=s.cut | full,
    )
    return state, jnp.where(forced, tape[at], sampled), forced

  room = max_thinking_tokens + len(final_tokens) + 2  # the end of thinking, and one of the answer
  forces = tuple(wait_tokens), (end_of_thinking, *final_tokens)
  same = lambda state, logits: logits
  return Control(init, same, take, cut=lambda s: s.cut, room=room, forces=forces)


def _never(sampled):
  return jnp.zeros(sampled.shape, bool)

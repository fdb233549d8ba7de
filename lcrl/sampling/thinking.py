"""Controls that read the text of a response: a budget for its thinking, and texts that stop it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.sampling.controls import Control
from lcrl.sampling.texts import Texts

END, START = 1, 2  # the numbers of the texts that end and start the thinking


class Thinking(NamedTuple):
  """Where a row stands under `thinking_budget`."""

  limit: jax.Array  # [R] int32, the budget
  node: jax.Array  # [R] int32, of the automaton
  thinking: jax.Array  # [R] bool
  spent: jax.Array  # [R] int32, tokens of thinking that were drawn
  left: jax.Array  # [R] int32, tokens until the end of the thinking must be written
  tape: jax.Array  # [R] int32, which token of the tape comes next; -1: the model's own
  cut: jax.Array  # [R] bool, met the budget


def thinking_budget(
  texts: Texts,
  tape: Sequence[int],
  *,
  budget: int | None = None,
  share: float | None = None,
  answer_tokens: int = 1,
) -> Control:
  """Ends the thinking of a row that has spent its budget, by forcing the tokens of `tape`.

    budget of a row = min(budget, floor(share * target))

  and at least 0. A row that still thinks when len(tape) + answer_tokens of its cap are left has
  spent it, too. A row thinks from its first token on, unless the forced start of its response has
  ended the thinking. If there is a text that starts the thinking, a row thinks from there on, be it
  in the prompt, of which the last of both texts counts. A token that ends the thinking by itself,
  just when the budget is spent, is left as it is.

  Args:
    texts: the automaton of the text that ends the thinking and, if it is marked, of the one that
      starts it.
    tape: tokens that end the thinking.
    budget: tokens of thinking that may be drawn; None: no limit but those below.
    share: of the row's target length; None: likewise.
    answer_tokens: of the cap, left for what follows the tape.
  """
  tape = tuple(tape)
  most = np.iinfo(np.int32).max if budget is None else budget

  def init(tokens, lengths, asked=None):
    def read(state, column):
      (node, thinking), (at, token) = state, column
      after, found = texts.step(node, token)
      changed = jnp.where(found > 0, found == START, thinking)
      there = (at >= first) & (at < lengths)
      return (jnp.where(there, after, node), jnp.where(there, changed, thinking)), None

    zeros = jnp.zeros(lengths.shape, jnp.int32)
    marked = bool((texts.found == START).any())
    first = zeros if marked else lengths - (0 if asked is None else asked.forced)
    columns = jnp.arange(tokens.shape[1]), tokens.T
    (node, thinking), _ = jax.lax.scan(read, (zeros, zeros == int(marked)), columns)
    limit = left = zeros + most
    if asked is not None:
      left = jnp.maximum(asked.caps - len(tape) - answer_tokens, 0)
      if share is not None:  # the slack keeps a share that is whole from being rounded down
        limit = jnp.minimum(limit, jnp.floor(share * asked.targets + 1e-3).astype(jnp.int32))
    limit = jnp.maximum(limit, 0)
    return Thinking(limit, node, thinking, zeros, left, tape=zeros - 1, cut=zeros > 0)

  def take(s: Thinking, logits, sampled):
    full = s.thinking & (s.tape < 0) & ((s.spent >= s.limit) | (s.left <= 0))
    full &= texts.step(s.node, sampled)[1] != END
    at = jnp.where(full, 0, s.tape)
    forced = at >= 0
    token = jnp.where(forced, jnp.array(tape, jnp.int32)[at], sampled)
    node, found = texts.step(s.node, token)
    thinking = jnp.where(found > 0, found == START, s.thinking)
    state = Thinking(
      limit=s.limit,
      node=node,
      thinking=thinking,
      spent=s.spent + (s.thinking & thinking & ~forced),
      left=jnp.maximum(s.left - 1, 0),
      tape=jnp.where(forced & (at + 1 < len(tape)), at + 1, -1),
      cut=s.cut | full,
    )
    return state, token, forced

  room = len(tape) + answer_tokens + (budget or 0)
  return Control(init, None, take, init_asked=init, cut=lambda s: s.cut, room=room, forces=(tape,))


class Stopping(NamedTuple):
  """Where a row stands under `stop_texts`."""

  node: jax.Array  # [R] int32, of the automaton
  found: jax.Array  # [R] int32, which text the last token has completed


def stop_texts(texts: Texts) -> Control:
  """Ends a response with the token that completes one of the texts. Prompts do not count."""

  def init(tokens, lengths):
    zeros = jnp.zeros(lengths.shape, jnp.int32)
    return Stopping(zeros, zeros)

  def take(s: Stopping, logits, sampled):
    return Stopping(*texts.step(s.node, sampled)), sampled, jnp.zeros(sampled.shape, bool)

  return Control(init, None, take, stops=lambda s: s.found)

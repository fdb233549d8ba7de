"""What `sampling.control` of a config may name; `chained` takes several.

Tokens are named by their text, such as "</think>", or by their number. A control that reads text,
or the size of the vocabulary, is a `Draft`: `finished` makes a `Control` of it for a tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lcrl.protocols import Tokenizer
from lcrl.sampling import steering
from lcrl.sampling.controls import Control, chain, min_p, top_k, top_p
from lcrl.sampling.mirostat import mirostat_v1, mirostat_v2

__all__ = [
  "budget_forcing",
  "chained",
  "end_of_thinking_bias",
  "end_of_thinking_scale",
  "eos_ramp",
  "min_p",
  "mirostat_v1",
  "mirostat_v2",
  "repeat_penalty",
  "token_bias",
  "top_k",
  "top_p",
]

Token = int | str  # its number or its text
Tokens = Sequence[int] | str


class Vocabulary(NamedTuple):
  """What a control must know of the policy's tokens."""

  tokenizer: Tokenizer
  size: int

  def one(self, token: Token, field: str) -> int:
    """The number of a token.

    Raises:
      ValueError: the text is not one token.
    """
    ids = self.several(token, field) if isinstance(token, str) else [token]
    if len(ids) != 1:
      raise ValueError(
        f"sampling.control.{field}={token!r} has to be one token; the tokenizer makes "
        f"{len(ids)} of it."
      )
    if not 0 <= ids[0] < self.size:
      raise ValueError(
        f"sampling.control.{field}={token!r} is no token of the policy, which has {self.size}."
      )
    return ids[0]

  def several(self, tokens: Tokens, field: str) -> list[int]:
    """The numbers of the tokens of a text."""
    ids = self.tokenizer.encode(tokens) if isinstance(tokens, str) else tokens
    return [self.one(token, field) for token in ids]


Draft = Callable[[Vocabulary], Control]
Choice = Control | Draft


def finished(choice: Choice, vocabulary: Vocabulary) -> Control:
  """The control, with the tokens of this vocabulary."""
  return choice if isinstance(choice, Control) else choice(vocabulary)


def chained(*, controls: Sequence[Any]) -> Choice:
  """`chain` of the controls, from left to right: what forces tokens stands first."""
  return lambda vocabulary: chain(*(finished(one, vocabulary) for one in controls))


def budget_forcing(
  end_of_thinking: Token = "</think>",
  *,
  max_thinking_tokens: int,
  min_thinking_tokens: int = 0,
  wait_tokens: Tokens = "Wait",
  num_ignore: int = 0,
  final_tokens: Tokens = (),
) -> Choice:
  """`lcrl.sampling.steering.budget_forcing`: bounds the thinking by forcing tokens (s1).

  Args:
    end_of_thinking: the token that ends the thinking.
    max_thinking_tokens: once so many are spent, `end_of_thinking` and `final_tokens` are forced.
    min_thinking_tokens: an end of the thinking before so many are spent becomes `wait_tokens`.
    wait_tokens: what stands in place of an end of the thinking that is not allowed.
    num_ignore: so many ends of the thinking are not allowed, wherever they come.
    final_tokens: forced after a thinking that was cut, such as "The answer is".
  """

  waits = num_ignore or min_thinking_tokens

  def draft(v: Vocabulary) -> Control:
    return steering.budget_forcing(
      v.one(end_of_thinking, "end_of_thinking"),
      max_thinking_tokens=max_thinking_tokens,
      min_thinking_tokens=min_thinking_tokens,
      wait_tokens=v.several(wait_tokens, "wait_tokens") if waits else (),
      num_ignore=num_ignore,
      final_tokens=v.several(final_tokens, "final_tokens"),
    )

  return draft


def end_of_thinking_bias(token: Token = "</think>", *, scale: float) -> Choice:
  """`lcrl.sampling.steering.end_of_thinking_bias`: odds of ending the thinking times `scale`."""
  return lambda v: steering.end_of_thinking_bias(v.one(token, "token"), scale=scale)


def end_of_thinking_scale(token: Token = "</think>", *, scale: float) -> Choice:
  """`lcrl.sampling.steering.end_of_thinking_scale`: thinking-phase temperature scaling (TLDR)."""
  return lambda v: steering.end_of_thinking_scale(v.one(token, "token"), scale=scale)


def token_bias(bias: Mapping[str, float]) -> Choice:
  """`lcrl.sampling.steering.token_bias`: text of a token, or its number as text -> a constant."""

  def number(text: str, v: Vocabulary) -> int:
    is_text = not text.isdecimal() or len(v.tokenizer.encode(text)) == 1
    return v.one(text if is_text else int(text), "bias")

  return lambda v: steering.token_bias({number(text, v): x for text, x in bias.items()})


def eos_ramp(
  end_id: Token | None = None,
  *,
  ramp_end: int = 250,
  max_bias: float = 15.0,
  hold: bool = False,
  hard_length: int = 1024,
  hard_bias: float = 100.0,
) -> Choice:
  """`lcrl.sampling.steering.eos_ramp`: the end token grows likelier with every token.

  Args:
    end_id: the token; None: the first that ends the tokenizer's responses.
    ramp_end: as for `ramp_bias`, and so are those below.
    max_bias: its height there.
    hold: what happens after.
    hard_length: with `hold`, the longest response that is not forced to end.
    hard_bias: the bias beyond.
  """
  ramp = dict(
    ramp_end=ramp_end, max_bias=max_bias, hold=hold, hard_length=hard_length, hard_bias=hard_bias
  )
  return lambda v: steering.eos_ramp(
    v.tokenizer.end_ids[0] if end_id is None else v.one(end_id, "end_id"), **ramp
  )


def repeat_penalty(vocab_size: int | None = None, *, penalty: float = 1.5) -> Choice:
  """`lcrl.sampling.steering.repeat_penalty` of every token that stands in prompt or response.

  Args:
    vocab_size: that of the policy.
    penalty: subtracted from the logit, once.
  """
  return lambda v: steering.repeat_penalty(vocab_size or v.size, penalty=penalty)

"""What `sampling.control` of a config may name; `chained` takes several.

Tokens are named by their text, such as "</think>", or by their number. A control that reads text,
or the size of the vocabulary, is a `Draft`: `finished` makes a `Control` of it for a tokenizer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lcrl.protocols import Tokenizer
from lcrl.sampling import steering, thinking
from lcrl.sampling.controls import Control, chain, min_p, top_k, top_p
from lcrl.sampling.mirostat import mirostat_v1, mirostat_v2
from lcrl.sampling.texts import Texts, automaton
from lcrl.values import Count, Whole

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
  "thinking_budget",
  "token_bias",
  "top_k",
  "top_p",
]

CONTROL = "sampling.control"
MOST_TEXTS = 100  # that stop a response: `EndReason` has one byte
Token = int | str  # its number or its text
Tokens = Sequence[int] | str


# Seconds for a large vocabulary, and each engine of a run asks for the same one.
_automaton = functools.lru_cache(maxsize=16)(automaton)


class Vocabulary(NamedTuple):
  """What a control must know of the policy's tokens."""

  tokenizer: Tokenizer
  size: int
  stops: Sequence[int] = ()  # tokens that end a response besides the tokenizer's

  @property
  def end_ids(self) -> tuple[int, ...]:
    """All tokens that end a response."""
    return tuple(dict.fromkeys([*self.tokenizer.end_ids, *self.stops]))

  def one(self, token: Token, field: str, section: str = CONTROL) -> int:
    """The number of a token.

    Raises:
      ValueError: the text is not one token.
    """
    ids = self.several(token, field) if isinstance(token, str) else [token]
    if len(ids) != 1:
      raise ValueError(
        f"{section}.{field}={token!r} has to be one token; the tokenizer makes {len(ids)} of it."
      )
    if not 0 <= ids[0] < self.size:
      raise ValueError(
        f"{section}.{field}={token!r} is no token of the policy, which has {self.size}."
      )
    return ids[0]

  def several(self, tokens: Tokens, field: str) -> list[int]:
    """The numbers of the tokens of a text."""
    ids = self.tokenizer.encode(tokens) if isinstance(tokens, str) else tokens
    return [self.one(token, field) for token in ids]

  def refuse_ends(self, ids: Sequence[int], field: str) -> None:
    """Raises ValueError if one of the tokens that `field` forces ends a response."""
    if ends := [i for i in ids if i in self.end_ids]:
      raise ValueError(f"{field} has token {ends[0]}, which ends a response.")

  def find(self, texts: Sequence[str], field: str) -> Texts:
    """The automaton that finds these texts in responses, special tokens by their names.

    Raises:
      ValueError: a text is empty, or is there twice, or no tokens write it.
    """
    if not all(texts) or len(texts) > MOST_TEXTS:
      raise ValueError(f"{field} must be up to {MOST_TEXTS} texts, none empty, got {texts}.")
    if twice := {text for text in texts if texts.count(text) > 1}:
      raise ValueError(f"{field} has {min(twice)!r} more than once.")
    text_of = lambda i: self.tokenizer.decode([i]).encode()
    known = getattr(self.tokenizer, "token_bytes", None)
    size = getattr(self.tokenizer, "vocab_size", self.size)
    pieces = known() if known else [text_of(i) for i in range(min(size, self.size))]
    pieces = [*pieces, *[b""] * self.size][: self.size]
    found = _automaton(tuple(text.encode() for text in texts), tuple(pieces))
    reachable = found.reachable
    for k, text in enumerate(texts, 1):
      if k not in reachable:
        raise ValueError(f"{field}={text!r}: no tokens of the policy write this text.")
    return found


Draft = Callable[[Vocabulary], Control]
Choice = Control | Draft


def finished(choice: Choice, vocabulary: Vocabulary) -> Control:
  """The control, with the tokens of this vocabulary."""
  return choice if isinstance(choice, Control) else choice(vocabulary)


def chained(*, controls: Sequence[Any]) -> Choice:
  """`chain` of the controls, from left to right: what forces tokens stands first.

  >>> from lcrl.data.tokenizers import utf8
  >>> vocabulary = Vocabulary(utf8(), size=258)
  >>> control = chained(controls=[token_bias({"a": 1.0}), top_k(1)])(vocabulary)
  >>> state = control.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
  >>> print(control.shape(state, jnp.zeros((1, 258)))[0, 96:99])
  [-inf   1. -inf]
  """
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

  >>> from lcrl.data.tokenizers import utf8
  >>> vocabulary = Vocabulary(utf8(), size=258)
  >>> forcing = budget_forcing("}", max_thinking_tokens=2, final_tokens="!")(vocabulary)
  >>> state = forcing.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
  >>> written = []
  >>> for _ in range(5):
  ...   state, token, _ = forcing.take(state, jnp.zeros((1, 258)), jnp.array([97]))
  ...   written.append(int(token[0]))
  >>> utf8().decode(written)
  'aa}!a'
  """

  waits = num_ignore or min_thinking_tokens

  def draft(v: Vocabulary) -> Control:
    waiting = v.several(wait_tokens, "wait_tokens") if waits else []
    final = v.several(final_tokens, "final_tokens")
    end = v.one(end_of_thinking, "end_of_thinking")
    v.refuse_ends([end], f"{CONTROL}.end_of_thinking={end_of_thinking!r}")
    v.refuse_ends(waiting, f"{CONTROL}.wait_tokens={wait_tokens!r}")
    v.refuse_ends(final, f"{CONTROL}.final_tokens={final_tokens!r}")
    return steering.budget_forcing(
      end,
      max_thinking_tokens=max_thinking_tokens,
      min_thinking_tokens=min_thinking_tokens,
      wait_tokens=waiting,
      num_ignore=num_ignore,
      final_tokens=final,
    )

  return draft


def thinking_budget(
  budget: Whole | None = None,
  *,
  share: float | None = None,
  end_text: str = "</think>",
  start_text: str | None = None,
  forced_text: str | None = None,
  answer_tokens: Count = 1,
) -> Choice:
  """`lcrl.sampling.thinking.thinking_budget`: a thinking that spent its budget is ended by text.

  Texts are found wherever tokens have their borders. The forced tokens are context: they do not
  train, are not compared with any policy, and count in lengths with `sampling.count_forced`.
  vLLM calls the budget `thinking_token_budget` and the texts `reasoning_config`.
  Source: Elastic Reasoning, arXiv:2505.05315.

  Args:
    budget: tokens of thinking that may be drawn; 0: none.
    share: of the row's target length (`budget`, the section), rounded down; of two limits the
      smaller holds, and one of them must be given.
    end_text: ends the thinking: "</think>" for R1, Qwen3 and most families, "[/THINK]" for
      Magistral, "</seed:think>" for Seed-OSS.
    start_text: starts it, in a prompt or response; None: a response thinks from its first token on,
      whatever its prompt says, unless its forced start has ended the thinking.
    forced_text: what is forced; it holds `end_text`, which it is by default, and may say more, such
      as "Time is up.</think>".
    answer_tokens: left of the cap for the answer: thinking is cut that much earlier.
  """
  if budget is None and share is None:
    raise ValueError("sampling.control of thinking_budget needs a budget or a share.")
  if share is not None and share <= 0:
    raise ValueError(f"sampling.control.share must be positive, got {share}.")
  forced = end_text if forced_text is None else forced_text

  def draft(v: Vocabulary) -> Control:
    texts = v.find([end_text, *([] if start_text is None else [start_text])], f"{CONTROL}.end_text")
    field = f"{CONTROL}.{'end_text' if forced_text is None else 'forced_text'}"
    try:
      tape = v.several(forced, field)
    except ValueError as why:
      raise ValueError(f"{field}={forced!r} cannot be encoded: {why}") from why
    if texts.read(tape) != thinking.END:
      raise ValueError(f"{field}={forced!r} does not end the thinking once it is encoded.")
    v.refuse_ends(tape, f"{field}={forced!r}")
    return thinking.thinking_budget(
      texts, tape, budget=budget, share=share, answer_tokens=answer_tokens
    )

  return draft


def end_of_thinking_bias(token: Token = "</think>", *, scale: float) -> Choice:
  """`lcrl.sampling.steering.end_of_thinking_bias`: odds of ending the thinking times `scale`.

  >>> from lcrl.data.tokenizers import utf8
  >>> vocabulary = Vocabulary(utf8(), size=258)
  >>> control = end_of_thinking_bias("}", scale=2.0)(vocabulary)
  >>> state = control.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
  >>> print(control.shape(state, jnp.zeros((1, 258)))[0, 124:127].round(3))
  [0.    0.693 0.   ]
  """
  return lambda v: steering.end_of_thinking_bias(v.one(token, "token"), scale=scale)


def end_of_thinking_scale(token: Token = "</think>", *, scale: float) -> Choice:
  """`lcrl.sampling.steering.end_of_thinking_scale`: thinking-phase temperature scaling (TLDR).

  >>> from lcrl.data.tokenizers import utf8
  >>> vocabulary = Vocabulary(utf8(), size=258)
  >>> control = end_of_thinking_scale("}", scale=2.0)(vocabulary)
  >>> state = control.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
  >>> print(control.shape(state, jnp.ones((1, 258)))[0, 124:127].round(3))
  [1. 2. 1.]
  """
  return lambda v: steering.end_of_thinking_scale(v.one(token, "token"), scale=scale)


def token_bias(bias: Mapping[str, float]) -> Choice:
  """`lcrl.sampling.steering.token_bias`: text of a token, or its number as text -> a constant.

  >>> from lcrl.data.tokenizers import utf8
  >>> vocabulary = Vocabulary(utf8(), size=258)
  >>> control = token_bias({"a": -1.0})(vocabulary)
  >>> print(control.shape((), jnp.zeros((1, 258)))[0, 96:99])
  [ 0. -1.  0.]
  """

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

  >>> from lcrl.data.tokenizers import utf8
  >>> vocabulary = Vocabulary(utf8(), size=258)
  >>> control = eos_ramp(ramp_end=100)(vocabulary)
  >>> state = control.init(jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
  >>> state, *_ = control.take(state, None, jnp.array([97]))
  >>> print(control.shape(state, jnp.zeros((1, 258)))[0, 255:].round(3))
  [0.   0.15 0.  ]
  """
  ramp = dict(
    ramp_end=ramp_end, max_bias=max_bias, hold=hold, hard_length=hard_length, hard_bias=hard_bias
  )
  return lambda v: steering.eos_ramp(
    v.tokenizer.end_ids[0] if end_id is None else v.one(end_id, "end_id"), **ramp
  )


def repeat_penalty(*, penalty: float = 1.5) -> Choice:
  """`lcrl.sampling.steering.repeat_penalty` of every token that stands in prompt or response.

  Args:
    penalty: subtracted from the logit, once.

  >>> from lcrl.data.tokenizers import utf8
  >>> vocabulary = Vocabulary(utf8(), size=258)
  >>> control = repeat_penalty(penalty=1.0)(vocabulary)
  >>> state = control.init(jnp.array([[97, 98]]), jnp.array([2]))
  >>> print(control.shape(state, jnp.zeros((1, 258)))[0, 96:100])
  [ 0. -1. -1.  0.]
  """
  return lambda v: steering.repeat_penalty(v.size, penalty=penalty)

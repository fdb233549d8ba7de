"""The text of the testbed: sums whose working can be long or short. Imports no jax.

A problem labels its operands and the working copies them, so that a small decoder can learn it.

    prompt      a3b5c9?
    response    a0+3+5=8a0+3+5=8c8+9=7#7.

A step is the label of its first operand, the running value, one or more operands and the new value,
here modulo 10; a step may be repeated as a re-check. "#" precedes the answer, "." ends it. Numbers
have a fixed width, with leading zeros. Difficulty is the number of operands.
"""

from __future__ import annotations

import dataclasses
import re
import string
from collections.abc import Iterable

from lcrl.tasks.task import BadFormat, Messages

SYMBOLS = "_.?#+="
PAD, END, ASK, ANSWER, PLUS, EQUALS = range(len(SYMBOLS))
ZERO = len(SYMBOLS)  # the token of digit 0
LABEL = ZERO + 10  # the token of the first operand's label


@dataclasses.dataclass(frozen=True)
class Sums:
  """A family of sums, and its tokenizer. Hashable: a jitted function may take one as static."""

  fewest: int = 2  # operands of a problem
  most: int = 4
  digits: int = 1  # of an operand
  modulus: int | None = 10  # None: plain sums
  per_step: int = 3  # most operands of one step

  def __post_init__(self):
    if not 1 <= self.fewest <= self.most <= len(string.ascii_lowercase):
      raise ValueError(f"1 <= fewest <= most <= 26 must hold, got {self.fewest} and {self.most}.")
    if self.digits < 1 or self.most * 10**self.digits + (self.modulus or 0) >= 2**31:
      raise ValueError(f"digits must be positive and sums fit int32, got {self.digits}.")
    if self.modulus is not None and self.modulus < 2:
      raise ValueError(f"modulus must be None or at least 2, got {self.modulus}.")
    if self.per_step < 1:
      raise ValueError(f"per_step must be positive, got {self.per_step}.")

  @property
  def symbols(self) -> str:
    """Token i is the character symbols[i].

    >>> Sums().symbols
    '_.?#+=0123456789abcd'
    """
    return SYMBOLS + string.digits + string.ascii_lowercase[: self.most]

  @property
  def width(self) -> int:
    """Digits of a running value and of the answer."""
    largest = self.most * (10**self.digits - 1) if self.modulus is None else self.modulus - 1
    return len(str(largest))

  @property
  def prompt_length(self) -> int:
    """Tokens of the longest prompt."""
    return self.most * (1 + self.digits) + 1

  @property
  def response_length(self) -> int:
    """Tokens of the longest demonstration: one operand a step, each step twice."""
    return 2 * self.most * self._step(1) + self.width + 2

  def shortest_length(self, difficulty: int) -> int:
    """Tokens of the shortest correct working: the fewest steps, none twice. Known by construction.

    The verifier reads the answer alone, so a policy that leaves steps out can be shorter still.

    >>> [Sums().shortest_length(n) for n in (2, 3, 4)], len("a0+3+5=8#8.")
    ([11, 13, 19], 11)
    """
    full, rest = divmod(difficulty, self.per_step)
    steps = full * self._step(self.per_step) + (self._step(rest) if rest else 0)
    return steps + self.width + 2

  def _step(self, operands: int) -> int:
    """Tokens of a step."""
    return 2 + 2 * self.width + operands * (1 + self.digits)

  @property
  def pad_id(self) -> int:
    return PAD

  @property
  def vocab_size(self) -> int:
    return len(self.symbols)

  @property
  def end_ids(self) -> tuple[int, ...]:
    return (END,)

  def encode(self, text: str) -> list[int]:
    """Text to tokens.

    >>> Sums().encode("a3?")
    [16, 9, 2]
    """
    if unknown := set(text) - set(self.symbols):
      raise ValueError(f"there are no tokens for {''.join(sorted(unknown))!r} in {text!r}.")
    return [self.symbols.index(c) for c in text]

  def decode(self, tokens: Iterable[int]) -> str:
    """Tokens to text, padding and end token included."""
    return "".join(self.symbols[t] for t in tokens)

  def render(self, messages: Messages) -> str:
    return "".join(message["content"] for message in messages)


def score(response: str, reference: int, *, width: int) -> float:
  """1 if the response ends with "#" and the right answer in `width` digits, 0 if with a wrong one.

  Nothing checks the working, as usual in learning from verifiable answers: it may be wrong or
  absent, and stays only as long as it helps.

  >>> score("a0+3+5=8#8", 8, width=1)
  1.0
  """
  match = re.search(rf"#([0-9]{{{width}}})\Z", response)
  if not match:
    raise BadFormat(f"the response ends with {response[-width - 1 :]!r}")
  return float(int(match[1]) == reference)

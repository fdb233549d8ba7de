"""What rollouts ask of a tokenizer and of a verifier, whoever provides them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a type alone: this module imports nothing
  from lcrl.tasks.task import Prompt
  from lcrl.tasks.verify import Verdict

__all__ = ["Tokenizer", "Verifier"]


class Tokenizer(Protocol):
  """Text to tokens and back, and conversations to the text of a prompt.

  `decode` is needed where responses are verified; rows of data do without it.
  """

  @property
  def pad_id(self) -> int:
    """The token that stands behind the end of a row."""
    ...

  @property
  def end_ids(self) -> Sequence[int]:
    """The tokens that end an answer, the one that the template writes first."""
    ...

  def encode(self, text: str, /) -> list[int]:
    """The tokens of a text alone, without any that begin or end it."""
    ...

  def decode(self, ids: Sequence[int], /) -> str:
    """The text of tokens."""
    ...

  @property
  def render(self) -> Callable[..., str]:
    """render(messages, **variables): the prompt of a conversation, up to where the answer begins.

    Tokenizers differ in the keywords that they name, so its type leaves them open.
    """
    ...


class Verifier(Protocol):
  """Scores responses to a task's prompts, as `lcrl.tasks.verify.Verifier` does."""

  def verify(self, items: Iterable[tuple[str, Prompt]]) -> list[Verdict]:
    """One verdict for each (response, prompt), in their order."""
    ...

  def submit(self, items: Iterable[tuple[str, Prompt]]) -> Future[list[Verdict]]:
    """What `verify` returns, once it is there."""
    ...

"""What rollouts ask of a tokenizer, a sampler and a verifier, whoever provides them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # a type alone: this module imports nothing
  import jax

  from lcrl.data.rows import Rows
  from lcrl.sampling.pages import PoolUse
  from lcrl.tasks.task import Prompt
  from lcrl.tasks.verify import Verdict
  from lcrl.types import Budget, PyTree, Rollouts

__all__ = ["Sampler", "Tokenizer", "Verifier"]


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


class Sampler(Protocol):
  """Samples responses on devices, as `lcrl.sampling.engine.Engine` does.

  One that knows why its responses end has an attribute `tells_ends` that is True: without it, a
  stage that reads `Rollouts.truncated` is refused. Its `end_ids`, if it has any, are the tokens
  that end its responses, in place of the tokenizer's.
  """

  @property
  def max_tokens(self) -> int:
    """Tokens of a response, at most."""
    ...

  def prepared(self, params: PyTree, /) -> PyTree:
    """The sampler's copy of a policy's parameters, which `stream` takes, too."""
    ...

  def stream(
    self, params: PyTree, rows: Rows, budget: Budget, key: jax.Array, /
  ) -> Iterator[tuple[Rollouts, jax.Array] | tuple[Rollouts, jax.Array, PoolUse | None]]:
    """(rollouts, which of them [B, G] have ended), again and again until all have; not awaited. A
    sampler with a pool of pages adds to the last how far it was used."""
    ...


class Verifier(Protocol):
  """Scores responses to a task's prompts, as `lcrl.tasks.verify.Verifier` does."""

  def verify(self, items: Iterable[tuple[str, Prompt]]) -> list[Verdict]:
    """One verdict for each (response, prompt), in their order."""
    ...

  def submit(self, items: Iterable[tuple[str, Prompt]]) -> Future[list[Verdict]]:
    """What `verify` returns, once it is there."""
    ...

"""The tokenizers that `tokenizer.fn` of a config may name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from lcrl.policies.vocabulary import tokenizer as pretrained
from lcrl.registry import takes
from lcrl.tasks.sums import Sums
from lcrl.tasks.task import Messages

__all__ = ["pretrained", "sums", "utf8"]


@dataclasses.dataclass(frozen=True)
class Utf8:
  """One token per byte, 256 for the end and 257 for padding. For tests and smoke runs: no files.

  >>> text = Utf8()
  >>> text.decode([*text.encode("é2"), *text.end_ids])
  'é2'
  """

  end_ids: tuple[int, ...] = (256,)
  pad_id: int = 257

  def encode(self, text: str) -> list[int]:
    return list(text.encode())

  def decode(self, tokens: Iterable[int]) -> str:
    return bytes(t for t in tokens if t < 256).decode(errors="replace")

  def token_bytes(self) -> list[bytes]:
    """What each token adds to a text."""
    return [bytes([i]) for i in range(256)]

  @property
  def vocab_size(self) -> int:
    return 258

  def render(self, messages: Messages) -> str:
    """The contents, one below the other."""
    return "".join(message["content"] + "\n" for message in messages)


def utf8() -> Utf8:
  """The byte tokenizer; a policy for it has vocab_size 258.

  >>> utf8().encode("hi"), utf8().decode([104, 105])
  ([104, 105], 'hi')
  """
  return Utf8()


@takes(Sums)
def sums(**sizes) -> Sums:
  """The tokenizer of the arithmetic testbed; the sizes are those of its task."""
  return Sums(**sizes)

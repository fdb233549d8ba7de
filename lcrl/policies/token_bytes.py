"""What each token of a tokenizer adds to a text."""

from __future__ import annotations

import json
import re

import tokenizers


def token_bytes(core: tokenizers.Tokenizer) -> list[bytes]:
  """The bytes of every token; nothing where a number has no token.

  The text of tokens is these, one after the other, except that a decoder may take white space off
  the beginning of a text.
  """
  vocab, added = core.get_vocab(), core.get_added_tokens_decoder()
  decoder = json.loads(core.decoder.__getstate__()) if core.decoder else {}
  kinds = {part.get("type") for part in decoder.get("decoders", [decoder])}
  # A decoder treats the first token of a text, and bytes that are no text by themselves, as
  # special: bytes are read off the names of tokens, and other texts behind one that stands first.
  letters = _letters()
  first = next((i for text, i in vocab.items() if text.isalnum() and i not in added), None)
  before = "" if first is None else core.decode([first])

  def of(text: str, i: int) -> bytes:
    if i in added:
      return added[i].content.encode()
    if "ByteLevel" in kinds:
      return bytes(letters[c] for c in text if c in letters)
    if "ByteFallback" in kinds and re.fullmatch("<0x[0-9A-F]{2}>", text):
      return bytes([int(text[3:5], 16)])
    return core.decode([i] if first is None else [first, i])[len(before) :].encode()

  found = [b""] * (max(vocab.values(), default=-1) + 1)
  for text, i in vocab.items():
    found[i] = of(text, i)
  return found


def _letters() -> dict[str, int]:
  """The letter that stands for a byte in the names of tokens: printable bytes for themselves, the
  others for the code points from 256 on."""
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {chr(256 + i): b for i, b in enumerate(others)}

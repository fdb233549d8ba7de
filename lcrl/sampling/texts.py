"""Texts found in a response while it is sampled, wherever the tokens have their borders.

A response is the bytes of its tokens, one after the other, whatever they are: "</think>" may be one
token, or three, or begin and end inside of others. So a table says, for how much of a text stands
at the end so far and for every token, how much stands there after it, and which text is complete: a
deterministic automaton (Aho and Corasick 1975) over tokens. A step on a device is two look-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Texts(NamedTuple):
  """The automaton of K texts. Nodes are the beginnings of texts; node 0 is the empty one."""

  kind: np.ndarray  # [V] int32, tokens of one kind act alike
  node: np.ndarray  # [nodes, kinds] int32, the longest beginning that stands behind the token
  found: np.ndarray  # [nodes, kinds] int32, k: it completes the k-th text, the longest of several

  def step(self, node: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The node behind a token, and the text that it completes: 1 to K, or 0. [...] int32 each."""
    at = node, jnp.asarray(self.kind)[token]
    return jnp.asarray(self.node)[at], jnp.asarray(self.found)[at]

  def read(self, tokens: Sequence[int]) -> int:
    """The text that the tokens complete last, 1 to K, or 0; from node 0, on the host."""
    node = last = 0
    for kind in self.kind[np.asarray(tokens, int)].tolist():
      node, last = int(self.node[node, kind]), int(self.found[node, kind]) or last
    return last

  @property
  def reachable(self) -> set[int]:
    """Which of the texts, 1 to K, some tokens can complete."""
    nodes, seen = {0}, set[int]()
    while nodes - seen:
      seen |= nodes
      nodes = set(self.node[sorted(seen)].ravel().tolist())
    return set(self.found[sorted(seen)].ravel().tolist()) - {0}


def automaton(texts: Sequence[bytes], pieces: Sequence[bytes]) -> Texts:
  """The automaton of some texts for a vocabulary.

  Args:
    texts: K of them, none empty.
    pieces: the bytes of each of V tokens.

  >>> texts = automaton([b"stop"], [b"x", b"st", b"op", b"xs", b"topy"])
  >>> texts.read([1, 2]), texts.read([3, 4]), texts.read([1, 0, 2])
  (1, 1, 0)
  """
  letters = bytes(sorted({*b"".join(texts)}))
  begins = sorted({text[:n] for text in texts for n in range(len(text) + 1)}, key=len)
  number = {begin: i for i, begin in enumerate(begins)}
  after = np.zeros((len(begins), 256), np.int32)
  for begin, i in number.items():
    for byte in letters:
      word = begin + bytes([byte])
      after[i, byte] = next(
        number[end] for j in range(len(word) + 1) if (end := word[j:]) in number
      )
  ends = lambda begin: [(len(text), k) for k, text in enumerate(texts, 1) if begin.endswith(text)]
  complete = np.array([max(ends(begin), default=(0, 0))[1] for begin in begins], np.int32)

  # All bytes that stand in no text are alike, and so are all tokens that differ in these alone.
  other = next((i for i in range(256) if i not in letters), 0)
  alike = bytes(i if i in letters else other for i in range(256))
  pieces = [piece.translate(alike) for piece in pieces]
  spelled = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
  node = np.repeat(np.arange(len(begins), dtype=np.int32)[:, None], len(spelled), 1)
  found = np.zeros_like(node)
  left = sorted(spelled, key=len)
  for j in range(max(map(len, left))):
    left = [piece for piece in left if len(piece) > j]
    at = [spelled[piece] for piece in left]
    node[:, at] = after[node[:, at], [piece[j] for piece in left]]
    now = complete[node[:, at]]
    found[:, at] = np.where(now > 0, now, found[:, at])
  columns = np.concatenate([node, found]).T
  kinds: dict[bytes, int] = {}
  kind = np.array([kinds.setdefault(column.tobytes(), len(kinds)) for column in columns], np.int32)
  first = np.unique(kind, return_index=True)[1]
  by_token = kind[[spelled[piece] for piece in pieces]]
  return Texts(by_token, node[:, first], found[:, first])

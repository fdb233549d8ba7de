"""What bare functions check of their arrays: shapes, and types where an argument's name tells them.

Errors are ValueErrors about static facts that name the arguments and what was given. An array here
is anything with a shape and a dtype; a Python number stands for no array.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import jax.numpy as jnp

__all__ = [
  "ascending",
  "one_or_each",
  "per_row",
  "positive",
  "same_groups",
  "same_pairs",
  "same_shape",
  "typed",
]


def __dir__() -> list[str]:
  return __all__


# By name, or by the end of a name such as chosen_mask.
BOOLEAN = ["mask", "keep", "valid", "truncated", "spared", "unread", "seen", "desirable"]
BOOLEAN += ["positive", "present", "preferred", "long", "mode"]
_KINDS: tuple[tuple[str, Any, list[str]], ...] = (
  ("bool", jnp.bool_, BOOLEAN),
  ("integers", jnp.integer, ["tokens", "levels", "tags"]),
  ("numbers", jnp.number, ["lengths", "targets", "budgets", "limits"]),
  ("floating-point numbers", jnp.floating, ["log_probs", "log_ratios"]),
)
_KIND_OF = {name: (text, kind) for text, kind, names in _KINDS for name in names}


def typed(**arrays: Any) -> None:
  """Masks are bool, lengths numbers, log-probs floating-point numbers, by the arguments' names.

  >>> typed(keep=jnp.ones(2))
  Traceback (most recent call last):
  ValueError: keep must be an array of bool, got float32 (2,).
  """
  for name, x in arrays.items():
    known = [found for end, found in _KIND_OF.items() if name == end or name.endswith("_" + end)]
    if not hasattr(x, "shape"):
      raise ValueError(f"{name} must be an array, got {x!r}.")
    for text, kind in known:
      if not jnp.issubdtype(x.dtype, kind):
        raise ValueError(f"{name} must be an array of {text}, got {_said(x)}.")


def same_shape(**arrays: Any) -> None:
  """All have one shape, and the types that their names tell.

  >>> same_shape(rewards=jnp.ones(2), targets=10)
  Traceback (most recent call last):
  ValueError: rewards and targets must share a shape, got (2,), 10.
  """
  shapes = [getattr(x, "shape", x) for x in arrays.values()]
  if any(shape != shapes[0] for shape in shapes) or not isinstance(shapes[0], tuple):
    raise ValueError(f"{_names(arrays)} must share a shape, got {', '.join(map(str, shapes))}.")
  typed(**arrays)


def same_groups(**arrays: Any) -> None:
  """All are [..., B, G]: a flat batch of B * G would pass for one group.

  >>> same_groups(rewards=jnp.ones(8), keep=jnp.ones(8, bool))
  Traceback (most recent call last):
  ValueError: rewards and keep must be [B, G], a group a row (one group: x[None]), got (8,).
  """
  same_shape(**arrays)
  shape = next(iter(arrays.values())).shape
  if len(shape) < 2:
    raise ValueError(
      f"{_names(arrays)} must be [B, G], a group a row (one group: x[None]), got {shape}."
    )


def same_pairs(**arrays: Any) -> None:
  """All are [B], or [] for one pair: values of tokens [B, T] would pass for pairs.

  >>> same_pairs(chosen=jnp.zeros((2, 5)), rejected=jnp.zeros((2, 5)))
  Traceback (most recent call last):
      ...
  ValueError: chosen and rejected must be [B], one value a pair, got (2, 5).
  """
  same_shape(**arrays)
  shape = next(iter(arrays.values())).shape
  if len(shape) > 1:
    raise ValueError(f"{_names(arrays)} must be [B], one value a pair, got {shape}.")


def one_or_each(of: dict[str, Any], **knobs: Any) -> None:
  """`knobs` are one number, or one for each value `of` [...].

  >>> one_or_each({"a prompt": jnp.zeros(4)}, alpha=jnp.zeros(3))
  Traceback (most recent call last):
      ...
  ValueError: alpha must be one number or one for each of a prompt (4,), got (3,).
  """
  (values, *_), shape = of, next(iter(of.values())).shape
  for name, x in knobs.items():
    if jnp.shape(x) not in ((), shape):
      raise ValueError(
        f"{name} must be one number or one for each of {values} {shape}, got {jnp.shape(x)}."
      )


def per_row(of: dict[str, Any], **rows: Any) -> None:
  """`rows` are [...] for the tokens `of` [..., T].

  >>> per_row(dict(mask=jnp.ones((2, 3), bool)), keep=jnp.ones(3, bool))
  Traceback (most recent call last):
  ValueError: keep must be (2,), one value a row of mask (2, 3), got (3,).
  """
  same_shape(**of)
  (tokens, *_), shape = of, next(iter(of.values())).shape
  for name, x in rows.items():
    if not shape or getattr(x, "shape", None) != shape[:-1]:
      raise ValueError(
        f"{name} must be {shape[:-1]}, one value a row of {tokens} {shape}, "
        f"got {getattr(x, 'shape', x)}."
      )
  typed(**rows)


def positive(**numbers: Any) -> None:
  """Python numbers are above 0; arrays pass.

  >>> positive(alpha=0.5, beta=-1)
  Traceback (most recent call last):
      ...
  ValueError: beta must be positive, got -1.
  """
  for name, value in numbers.items():
    if isinstance(value, int | float) and not value > 0:
      raise ValueError(f"{name} must be positive, got {value}.")


def ascending(**points: Sequence[int]) -> None:
  """Points are whole numbers of at least 1, each above the one before it.

  >>> ascending(budgets=(200, 100))
  Traceback (most recent call last):
  ValueError: budgets must be ascending whole numbers of at least 1, got (200, 100).
  """
  for name, values in points.items():
    whole = all(isinstance(value, int) and value >= 1 for value in values)
    if not values or not whole or any(a >= b for a, b in itertools.pairwise(values)):
      raise ValueError(
        f"{name} must be ascending whole numbers of at least 1, got {tuple(values)}."
      )


def _names(arrays: Iterable[str]) -> str:
  *most, last = arrays
  return f"{', '.join(most)} and {last}" if most else last


def _said(x: Any) -> str:
  return f"{x.dtype} {x.shape}"

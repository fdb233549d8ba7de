"""Values of a config: checked against the type of their field, and read from text."""

from __future__ import annotations

import ast
import collections.abc
import contextlib
import dataclasses
import difflib
import functools
import inspect
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal

LARGEST = 2**31 - 1  # of a whole number: devices count with int32


@dataclasses.dataclass(frozen=True)
class Within:
  """The range of a number, in `Annotated[int, Within(1)]`."""

  least: float
  most: float = LARGEST


Count = Annotated[int, Within(1)]
Whole = Annotated[int, Within(0)]


def check(value: Any, hint: Any, field: str) -> Any:
  """The value, if it is of the type `hint`.

  Raises:
    ValueError: it is not, or out of its range; the error names the field.
  """
  ranges = [r for r in _metadata(hint) if isinstance(r, Within)]
  if ranges and _is_number(value):  # before the type, whose own limits are wider or narrower
    (r,) = ranges
    if value < r.least:
      raise ValueError(f"{field} must be at least {r.least}, got {value}.")
    if value > r.most:
      raise ValueError(f"{field} must be at most {r.most}, got {value}.")
  if not _fits(value, hint, LARGEST if not ranges else math.inf):
    raise ValueError(f"{field} must be {said(hint)}, got {value!r:.80}.")
  return value


def _metadata(hint: Any) -> tuple:
  metadata = tuple(getattr(hint, "__metadata__", ()))
  return metadata + tuple(
    m for part in typing.get_args(hint) for m in getattr(part, "__metadata__", ())
  )


def _is_number(value: Any) -> bool:
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _fits(value: Any, hint: Any, largest: float) -> bool:
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  fits = functools.partial(_fits, largest=largest)
  if origin is Annotated:
    return fits(value, args[0])
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, part) for part in args)
  if hint is Any:
    return True
  if hint is None or hint is types.NoneType:
    return value is None
  if hint is bool:
    return isinstance(value, bool)
  if origin is Literal:
    return isinstance(value, str) and value in args
  if hint is int:
    return _is_number(value) and isinstance(value, numbers.Integral) and abs(int(value)) <= largest
  if hint is float:  # a whole number may be too large for one
    return _is_number(value) and abs(value) <= sys.float_info.max
  if origin is tuple and args[-1:] != (...,):
    return _is_list(value) and len(value) == len(args) and all(map(fits, value, args))
  if origin in (tuple, list, collections.abc.Sequence):
    return _is_list(value) and all(fits(x, args[0]) for x in value)
  if origin in (dict, collections.abc.Mapping):
    return isinstance(value, collections.abc.Mapping) and all(
      fits(k, args[0]) and fits(x, args[1]) for k, x in value.items()
    )
  if origin is collections.abc.Callable:
    return callable(value)
  if not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
    return True
  return isinstance(value, hint)


def _is_list(value: Any) -> bool:
  return isinstance(value, list | tuple)


def said(hint: Any) -> str:
  """The type in words.

  >>> said(int | None), said(tuple[str, ...])
  ('a whole number or None', 'a list of text')
  """
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    least = [f" of at least {r.least}" for r in hint.__metadata__ if isinstance(r, Within)]
    return said(args[0]) + "".join(least)
  if origin in (typing.Union, types.UnionType):
    return " or ".join(dict.fromkeys(map(said, args)))
  if origin in (tuple, list, collections.abc.Sequence):
    return f"a list of {said(args[0])}".replace("of a ", "of ").replace("number", "numbers")
  if origin in (dict, collections.abc.Mapping):
    return "a section"
  if origin is Literal:
    return f"one of {', '.join(args)}" if len(args) > 1 else str(args[0])
  names = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    os.PathLike: "a path",
    types.NoneType: "None",
    None: "None",
  }
  if hint in names:
    return names[hint]
  return "a section with fn" if origin or isinstance(hint, type) else "anything"


def parse(text: str, hint: Any = Any) -> Any:
  """The value of a command-line text for a field of this type; the text itself if it has no other.

  >>> parse("7", int | None), parse("None", int | None), parse("7", str)
  (7, None, '7')
  >>> parse("a, b", tuple[str, ...]), parse("['a', 'b']", str | Sequence[str])
  (('a', 'b'), ['a', 'b'])
  """
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return parse(text, args[0])
  parts = args if origin in (typing.Union, types.UnionType) else (hint,)
  if text == "None" and types.NoneType in parts:
    return None
  if str in parts:
    simple = (str, int, float, bool, types.NoneType)
    if text[:1] in "([{" and any(part not in simple for part in parts):  # a list of texts, say
      with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return ast.literal_eval(text)
    return text
  if bool in parts and text.lower() in ("true", "false"):
    return text.lower() == "true"
  try:
    value = ast.literal_eval(text)
  except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
    value = text
  if any(typing.get_origin(part) in (tuple, list, collections.abc.Sequence) for part in parts):
    if isinstance(value, str):
      value = tuple(filter(None, (piece.strip() for piece in value.split(","))))
    elif not _is_list(value):
      value = (value,)
  if float in parts and isinstance(value, int) and not isinstance(value, bool):
    with contextlib.suppress(OverflowError):  # `check` refuses it by field
      value = float(value)
  return value


@functools.cache
def hints(thing: Callable) -> dict[str, Any]:
  """The types of the fields of a dataclass, or of the arguments of a function, if known."""
  try:
    return typing.get_type_hints(thing, include_extras=True)
  except (NameError, TypeError, AttributeError):  # imported for type checkers only
    return {}


def nearest_first(name: Any, among: Sequence[str]) -> list[str]:
  """Those that look like `name`, then the others.

  >>> nearest_first("step_bonus_reward", ["acoer", "alp", "step_bonus"])
  ['step_bonus', 'acoer', 'alp']
  """
  close = difflib.get_close_matches(str(name), among, n=3, cutoff=0.6)
  return [*close, *(other for other in among if other not in close)]


def nearest(name: Any, among: Iterable[str]) -> str:
  """A half-sentence: did you mean ...? Empty if none is near.

  >>> nearest("grup_size", ["group_size", "steps"])
  '; did you mean group_size?'
  """
  close = difflib.get_close_matches(str(name), list(among), n=1, cutoff=0.6)
  return f"; did you mean {close[0]}?" if close else ""


def takes_any(function: Callable) -> bool:
  """True if it takes arguments that its signature does not name."""
  kinds = (p.kind for p in inspect.signature(function).parameters.values())
  return inspect.Parameter.VAR_KEYWORD in kinds

"""Typed reads of metadata that others wrote: one error names the file, the field and the value."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Fields(NamedTuple):
  """The fields of one file. A field that is null counts as absent.

  Each read takes the field's name and, where the field is optional, a default.

  Raises:
    ValueError: a field is missing and has no default, or its value is of the wrong kind.

  >>> Fields({"layers": 2}, "config.json").whole("layers")
  2
  """

  values: Mapping[str, Any]
  where: str

  def whole(self, key: str, *default: Any, least: int = 1, most: int = 2**31 - 1) -> Any:
    """An integer from `least` to `most`."""
    fits = lambda value: _is_number(value, int) and least <= value <= most
    return self._read(key, fits, f"a whole number from {least} to {most}", default)

  def positive(self, key: str, *default: Any) -> Any:
    """A number above 0 that float32 holds with room to compute."""
    fits = lambda value: _is_number(value, int, float) and 0 < value < 1e30
    return self._read(key, fits, "a finite number above 0", default)

  def flag(self, key: str, *default: Any) -> Any:
    return self._read(key, lambda value: isinstance(value, bool), "true or false", default)

  def text(self, key: str, *default: Any) -> Any:
    return self._read(key, lambda value: isinstance(value, str), "a text", default)

  def table(self, key: str) -> dict[str, Any]:
    """An object, without its nulls; empty where there is none."""
    table = self._read(key, lambda value: isinstance(value, dict), "an object", ({},))
    return {name: value for name, value in table.items() if value is not None}

  def list_of(self, kind: type, key: str, *default: Any) -> Any:
    fits = lambda value: isinstance(value, list) and all(isinstance(x, kind) for x in value)
    return self._read(key, fits, f"a list of {kind.__name__}", default)

  def refuse(self, key: str, why: str) -> ValueError:
    """The error that names a field, to be raised."""
    return ValueError(f"{self.where}: {key}={reprlib.repr(self.values.get(key))} {why}.")

  def _read(self, key: str, fits: Callable[[Any], bool], kind: str, default: tuple) -> Any:
    value = self.values.get(key)
    if value is None and default:
      return default[0]
    if value is None:
      raise ValueError(f"{self.where}: {key} is missing.")
    if not fits(value):
      raise self.refuse(key, f"should be {kind}")
    return value


def _is_number(value: Any, *kinds: type) -> bool:
  return isinstance(value, kinds) and not isinstance(value, bool)

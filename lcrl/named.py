"""From a config's `dict(fn=name, **arguments)` to the function it names. The only such place."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any


def resolve(module: ModuleType, spec: Mapping[str, Any], *, field: str) -> Callable[..., Any]:
  """The function `spec["fn"]` of `module.__all__`, with the other keys of `spec` bound to it.

  A value that is itself a mapping with "fn", or a sequence of such, is built first, from the same
  module.

  Raises:
    ValueError: no "fn", a name that the module does not offer, or an argument that the function
      does not take; it names the field of the config.
  """
  if "fn" not in spec:
    raise ValueError(f"{field} needs a field fn, one of {', '.join(sorted(module.__all__))}.")
  name = spec["fn"]
  if name not in module.__all__:
    offered = ", ".join(sorted(module.__all__))
    raise ValueError(f"{field}.fn={name!r} is not one of {offered}.")
  function = getattr(module, name)
  arguments = {
    key: _built(module, value, field=f"{field}.{key}") for key, value in spec.items() if key != "fn"
  }
  parameters = inspect.signature(function).parameters
  if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
    for key in arguments:
      if key not in parameters:
        raise ValueError(
          f"{field}.{key} is not an argument of {name}, which takes {', '.join(parameters)}."
        )
  return functools.partial(function, **arguments)


def build(module: ModuleType, spec: Mapping[str, Any], *, field: str) -> Any:
  """What the named function returns when called with the other keys of `spec`."""
  function = resolve(module, spec, field=field)
  given = function.keywords  # type: ignore[attr-defined]
  for name, parameter in inspect.signature(function.func).parameters.items():  # type: ignore[attr-defined]
    required = parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    if required and name not in given:
      raise ValueError(f"{field}.{name} is missing: {spec['fn']} has no default for it.")
  return function()


def _built(module: ModuleType, value: Any, *, field: str) -> Any:
  if _is_spec(value):
    return build(module, value, field=field)
  if isinstance(value, list | tuple) and value and all(map(_is_spec, value)):
    return tuple(build(module, x, field=f"{field}[{i}]") for i, x in enumerate(value))
  return value


def _is_spec(value: Any) -> bool:
  return isinstance(value, Mapping) and "fn" in value


def names(spec: Any) -> Iterator[str]:
  """Every function that a section names, at any depth, outermost first.

  >>> list(names(dict(fn="soft_overlong", buffer=8, base=dict(fn="hapo"))))
  ['soft_overlong', 'hapo']
  """
  if isinstance(spec, Mapping):
    if "fn" in spec:
      yield spec["fn"]
    for value in spec.values():
      yield from names(value)
  elif isinstance(spec, list | tuple):
    for value in spec:
      yield from names(value)


def explained(module: ModuleType, spec: Any) -> dict[str, str]:
  """The docstrings of all functions that `spec` names, and of those that these name in turn."""
  found: dict[str, str] = {}
  waiting = list(names(spec))
  while waiting:
    name = waiting.pop(0)
    if name in module.__all__ and name not in found:
      function = getattr(module, name)
      found[name] = inspect.getdoc(function) or ""
      arguments = inspect.signature(function).parameters  # they stand in backticks, too
      waiting += [n for n in re.findall(r"`(\w+)`", found[name]) if n not in arguments]
  return found

"""From a config's `dict(fn=name, **arguments)` to the function it names. The only such place.

`fn` is a name that the section's module offers, or "package.module:name" of any function that
Python can import: nobody edits the library to try an idea.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar

from lcrl import values

F = TypeVar("F", bound=Callable)
RAISED = (TypeError, ArithmeticError, LookupError, AttributeError, OSError, MemoryError)


def takes(record: type) -> Callable[[F], F]:
  """The `**arguments` of the function are fields of this dataclass."""

  def mark(function: F) -> F:
    function.record = record  # type: ignore[attr-defined]
    return function

  return mark


def resolve(
  module: ModuleType, spec: Mapping[str, Any], *, field: str, gives: Any = None
) -> Callable[..., Any]:
  """The function that `spec["fn"]` names, with the other keys of `spec` bound to it.

  A value that is itself a mapping with "fn", or a sequence of such, is built first, from the same
  module. `gives`: the type that the function returns, or its name; errors list functions that do.

  Raises:
    ValueError: no "fn", a name that the module does not offer, or an argument that the function
      does not take; it names the field of the config.
  """
  function = find(module, spec, field=field, gives=gives)
  arguments = {
    key: _built(module, value, field=f"{field}.{key}", gives=annotated(function, key))
    for key, value in _arguments(function, spec, field).items()
  }
  for key, value in arguments.items():
    values.check(value, hints_of(function).get(key, Any), f"{field}.{key}")
  return functools.partial(function, **arguments)


def build(module: ModuleType, spec: Mapping[str, Any], *, field: str, gives: Any = None) -> Any:
  """What the named function returns when called with the other keys of `spec`."""
  function = resolve(module, spec, field=field, gives=gives)
  arguments = function.keywords  # type: ignore[attr-defined]
  _complete(function.func, spec, field)  # type: ignore[attr-defined]
  try:
    with placed(field):
      built = function()
  except RAISED as why:
    given = ", ".join(f"{key}={value!r:.40}" for key, value in arguments.items())
    raise ValueError(f"{field}: {spec['fn']}({given}) fails: {why or type(why).__name__}") from why
  if isinstance(gives, type) and not isinstance(built, gives):
    raise ValueError(f"{field}.fn={spec['fn']!r} gives {built!r:.60}, no {gives.__name__}.")
  return built


@contextlib.contextmanager
def placed(field: str, *errors: type[Exception]) -> Iterator[None]:
  """A ValueError, or one of these errors, becomes a ValueError that names the field."""
  caught: tuple[type[Exception], ...] = (ValueError, *errors)
  try:
    yield
  except caught as why:
    raise ValueError(str(why) if field in str(why) else f"{field}: {why}") from why


def check(
  module: ModuleType, spec: Any, *, field: str, gives: Any = None, whole: bool = True
) -> None:
  """Raises what `resolve` would, and for arguments that are missing if the function is called with
  these alone (`whole`), without calling anything."""
  function = find(module, spec, field=field, gives=gives)
  for key, value in _arguments(function, spec, field).items():
    name = f"{field}.{key}"
    nested = [(value, name)]
    if isinstance(value, list | tuple) and value and all(map(is_spec, value)):
      nested = [(x, f"{name}[{i}]") for i, x in enumerate(value)]
    for one, at in nested:
      if is_spec(one):
        check(module, one, field=at, gives=annotated(function, key))
      else:
        values.check(one, hints_of(function).get(key, Any), at)
  if whole:
    _complete(function, spec, field)


def find(module: ModuleType, spec: Any, *, field: str, gives: Any = None) -> Callable[..., Any]:
  """The function that `spec["fn"]` names."""
  among = offered(module, gives)
  if not isinstance(spec, Mapping):
    raise ValueError(f"{field} must be a section with a field fn, got {spec!r:.80}.")
  if "fn" not in spec:
    raise ValueError(f"{field} needs a field fn, one of {', '.join(among)}.")
  name = spec["fn"]
  if isinstance(name, str) and ":" in name:
    return _imported(name, f"{field}.fn")
  if name not in among:
    listed = ", ".join(values.nearest_first(name, among))
    raise ValueError(f"{field}.fn={name!r:.80} is not one of {listed}.")
  return getattr(module, name)


def offered(module: ModuleType, gives: Any = None) -> list[str]:
  """The functions of a module that return what is wanted, and those that do not say what they
  return; all of them if none says that it returns that."""
  names = sorted(name for name in module.__all__ if inspect.isroutine(getattr(module, name)))
  kinds = {
    name: _kinds(inspect.signature(getattr(module, name)).return_annotation) for name in names
  }
  if not any(kinds[name] & _kinds(gives) for name in names):
    return names
  return [name for name in names if not kinds[name] or kinds[name] & _kinds(gives)]


def _kinds(annotation: Any) -> set[str]:
  """The names of the types in an annotation, without their modules and without None."""
  text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
  return {part.rpartition(".")[2] for part in re.findall(r"[\w.]+", text)} - {
    "None",
    "NoneType",
    "_empty",
  }


def _imported(name: str, field: str) -> Callable[..., Any]:
  home, _, path = name.partition(":")
  try:
    target: Any = importlib.import_module(home)
  except ImportError as why:
    raise ValueError(f"{field}={name!r} cannot be imported: {why}.") from why
  except ValueError:
    raise ValueError(f"{field}={name!r} must be like package.module:name.") from None
  for part in path.split("."):
    if not hasattr(target, part):
      near = values.nearest(part, vars(target))
      raise ValueError(f"{field}={name!r}: {home} has no {path!r}{near or '.'}")
    target = getattr(target, part)
  if not callable(target):
    raise ValueError(f"{field}={name!r} is no function, but {target!r:.80}.")
  return target


@functools.cache
def hints_of(function: Callable) -> dict[str, Any]:
  """Types of the arguments that a config may give, as far as known."""
  record = getattr(function, "record", None)
  return values.hints(function) | (values.hints(record) if record else {})


def _arguments(function: Callable, spec: Mapping[str, Any], field: str) -> dict[str, Any]:
  """All keys of `spec` but "fn", which the function takes."""
  arguments = {key: value for key, value in spec.items() if key != "fn"}
  record = getattr(function, "record", None)
  known = [
    *(name for name, p in parameters(function).items() if p.kind is not p.VAR_KEYWORD),
    *(values.hints(record) if record else ()),
  ]
  for key in arguments:
    if key not in known and (record or not values.takes_any(function)):
      raise ValueError(
        f"{field}.{key} is not an argument of {spec['fn']}, which takes {', '.join(known)}"
        f"{values.nearest(key, known) or '.'}"
      )
  return arguments


def _complete(function: Callable, spec: Mapping[str, Any], field: str) -> None:
  """Raises for an argument without a default that is missing."""
  optional = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
  for name, parameter in parameters(function).items():
    if parameter.default is parameter.empty and parameter.kind not in optional and name not in spec:
      raise ValueError(f"{field}.{name} is missing: {spec['fn']} has no default for it.")


def annotated(function: Callable, name: str) -> Any:
  """How the type of an argument is written; None if it is not."""
  parameter = parameters(function).get(name)
  return (
    None if parameter is None or parameter.annotation is parameter.empty else parameter.annotation
  )


@functools.cache
def parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
  return inspect.signature(function).parameters


def _built(module: ModuleType, value: Any, *, field: str, gives: Any) -> Any:
  if is_spec(value):
    return build(module, value, field=field, gives=gives)
  if isinstance(value, list | tuple) and value and all(map(is_spec, value)):
    return tuple(build(module, x, field=f"{field}[{i}]") for i, x in enumerate(value))
  return value


def is_spec(value: Any) -> bool:
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
    if name not in found and (name in module.__all__ or ":" in name):
      function = _imported(name, "fn") if ":" in name else getattr(module, name)
      found[name] = inspect.getdoc(function) or ""
      arguments = inspect.signature(function).parameters  # they stand in backticks, too
      waiting += [n for n in re.findall(r"`(\w+)`", found[name]) if n not in arguments]
  return found

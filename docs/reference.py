"""What the reference shows of the package, and what it asks of every name.

Public is what a module of `lcrl` lists in its `__all__`, and the functions in ENTRY_POINTS. A name
that several modules offer is shown where its path is shortest.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import re
import types
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lcrl
from experiments import configs, methods
from lcrl import registry
from lcrl.training import fields

EXCEPTIONS = Path(__file__).with_name("without_example.txt")
NO_PAGE = re.compile(r"__main__$|^lcrl\.commands")  # programs: `--help` tells what they take
ENTRY_POINTS = {"lcrl.training.loop": ("train",)}  # of modules without `__all__`
SLOTS = ("budgets", "rewards", "filters", "advantages", "losses")
SHAPE = re.compile(r"\[(\.\.\.|[A-Z]\w*\b|\])")  # [...], [B, G], []
SOURCE = re.compile(r"arXiv:\d|\bSources?:|\bSource ")


class Entry(NamedTuple):
  home: str  # the module from which a user imports it
  name: str
  value: Any

  @property
  def path(self) -> str:
    return f"{self.home}.{self.name}"

  @property
  def doc(self) -> str:
    """The docstring of a function or class; empty for one that a class inherits or generates."""
    text = vars(self.value).get("__doc__") if inspect.isclass(self.value) else self.value.__doc__
    text = inspect.cleandoc(text or "")
    return "" if text.startswith(f"{self.name}(") else text

  @property
  def is_function(self) -> bool:
    return inspect.isroutine(self.value)

  @property
  def is_bare(self) -> bool:
    """A function of arrays in a slot, rather than one that makes a stage."""
    if not self.is_function or self.home.split(".")[1] not in SLOTS:
      return False
    kinds = [str(p.annotation) for p in inspect.signature(self.value).parameters.values()]
    return any("Array" in kind for kind in kinds)


@functools.cache
def entries() -> dict[str, Entry]:
  """All public names, by path, a module's names together and in the order of its `__all__`."""
  modules = [m.name for m in pkgutil.walk_packages(lcrl.__path__, "lcrl.")]
  modules = ["lcrl", *(name for name in modules if not NO_PAGE.search(name))]
  found: dict[Any, Entry] = {}
  for home in sorted(modules, key=lambda name: (name.count("."), name)):
    module = importlib.import_module(home)
    for name in getattr(module, "__all__", ENTRY_POINTS.get(home, ())):
      value = getattr(module, name)
      if not isinstance(value, types.ModuleType):
        key = id(value) if callable(value) else (name, repr(value))
        found.setdefault(key, Entry(home, name, value))
  return {entry.path: entry for entry in found.values()}


@functools.cache
def by_module() -> dict[str, list[Entry]]:
  """Module -> the names that are shown on its page."""
  found = defaultdict(list)
  for entry in entries().values():
    found[entry.home].append(entry)
  return dict(sorted(found.items()))


@functools.cache
def _named() -> dict[str, list[Entry]]:
  """Name -> the functions and classes of that name."""
  found = defaultdict(list)
  for entry in entries().values():
    if callable(entry.value):
      found[entry.name].append(entry)
  return found


def module_doc(name: str) -> str:
  """The docstring of a module."""
  return inspect.cleandoc(importlib.import_module(name).__doc__ or "")


def named(word: str, home: str) -> Entry | None:
  """The function or class that the docstrings of a module mean by a word in backticks: of its own
  package, or any if the word can hardly be an ordinary one."""
  last = word.rpartition(".")[2]
  package = ".".join(home.split(".")[:2])
  found = [e for e in _named().get(last, ()) if "_" in last or e.home.startswith(package)]
  return min(found, key=lambda e: (e.home != home, not e.home.startswith(package)), default=None)


class Use(NamedTuple):
  """A section of a config that names a function."""

  variant: configs.Variant
  section: str
  spec: Mapping[str, Any]


@functools.cache
def uses() -> dict[int, Use]:
  """Function, by id -> a section of a config that names it: of the method that it sets apart, and
  the shortest."""
  found: dict[int, list[Use]] = defaultdict(list)
  for variant in configs.variants().values():
    config = variant.config()
    for phase in (config, *config.get("then", ())):
      for section, spec in (*phase.items(), ("sampling.control", _control(phase))):
        place = fields.section(config.get("run", "rl"), tuple(section.split(".")))
        if isinstance(place, fields.Named):
          for name in registry.names(spec):
            function = getattr(place.module, name, None)
            found[id(function)].append(Use(variant, section, spec))
  own = {key: {method.key for method in several} for key, several in of_papers().items()}
  rank = lambda key: lambda use: (use.variant.name not in own.get(key, ()), len(repr(use.spec)))
  return {key: min(several, key=rank(key)) for key, several in found.items()}


def _control(config: Mapping[str, Any]) -> Any:
  return (config.get("sampling") or {}).get("control")


@functools.cache
def of_papers() -> dict[int, list[methods.Method]]:
  """Function, by id -> the methods that it sets apart (METHODS.md)."""
  found = defaultdict(list)
  for method in methods.methods():
    for function in method.functions.values():
      found[id(function)].append(method)
  return dict(found)


def lacks(entry: Entry) -> Iterator[str]:
  """What the reference asks of the entry and does not find."""
  if not callable(entry.value):  # a constant is shown with its value
    return
  summary = entry.doc.partition("\n\n")[0]
  if len(summary.split()) < 3:
    yield "docstring"
  if id(entry.value) in of_papers() and not _has_source(entry):
    yield "source"
  if entry.is_bare and not SHAPE.search(entry.doc):
    yield "shapes"
  if entry.is_function and ">>>" not in entry.doc and id(entry.value) not in uses():
    yield "example"


def _has_source(entry: Entry) -> bool:
  """A source in its docstring, its module's, or that of a function that it names."""
  near = (named(word, entry.home) for word in re.findall(r"`([\w.]+)`", entry.doc))
  docs = [entry.doc, module_doc(entry.value.__module__), *(one.doc for one in near if one)]
  return any(map(SOURCE.search, docs))


def missing() -> dict[str, list[str]]:
  """What is missing -> the paths of the entries that lack it."""
  found = defaultdict(list)
  for path, entry in entries().items():
    for what in lacks(entry):
      found[what].append(path)
  return dict(found)


def without_example() -> set[str]:
  """The functions that need no example yet; the list only gets shorter."""
  return {line for line in EXCEPTIONS.read_text(encoding="utf-8").split("\n") if line}


def problems() -> list[str]:
  """What is missing and not excepted, as lines."""
  return [
    f"{path}: no {what}"
    for what, paths in missing().items()
    for path in paths
    if what != "example" or path not in without_example()
  ]

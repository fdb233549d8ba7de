"""Finds the stored golden values that check a function: their adapters call it."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
import pathlib
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from lcrl import losses, recipes
from lcrl.losses import weights
from lcrl.training.rl import cropping, revise

ROOT = pathlib.Path(__file__).parent.parent
SECTIONS = {**recipes.SLOTS._asdict(), "weights": weights, "revise": revise}
TOOLS = ("lcrl.losses.draft_tree", "lcrl.data.bucketing")  # tier C: no config
MOST_GOLDENS = 9  # a function behind more entries than this says nothing about a method


def goldens_of(functions: Iterable[Callable]) -> tuple[str, ...]:
  """Golden entries whose adapter calls one of the functions, or the bare function behind it, most
  specific first. Functions behind many entries are ignored."""
  called = _called_by_goldens()
  shared = Counter(g for names in called.values() for g in names)
  wanted = {g for f in functions for g in _calls(f) if shared[g] <= MOST_GOLDENS}
  share = {key: len(names & wanted) / len(names) for key, names in called.items() if names & wanted}
  return tuple(sorted(share, key=lambda key: (-share[key], key)))


@functools.cache
def _called_by_goldens() -> dict[str, set[Callable]]:
  from tests.goldens import ADAPTERS

  return {key: _calls(f) for key, f in ADAPTERS.items() if key.startswith("rl_")}


def _calls(function: Callable) -> set[Callable]:
  """The public functions that `function` calls, directly or through helpers, itself included."""
  seen: set[Callable] = set()
  near = {function}
  while near:
    seen |= near
    through = {f for f in near if f is function or f not in public()}
    near = {g for f in through for g in _mentioned(f)} - seen
  return seen & public()


@functools.cache
def public() -> set[Callable]:
  """The functions of the slots, the losses and the tools of tier C."""
  modules = [*SECTIONS.values(), losses, cropping, *map(importlib.import_module, TOOLS)]
  found = {vars(m).get(name) for m in modules for name in getattr(m, "__all__", vars(m))}
  return {f for f in found if inspect.isfunction(f) and not f.__name__.startswith("_")}


def _mentioned(f: Callable) -> Iterator[Callable]:
  """The project's functions that its code, inner functions included, and its closure refer to."""
  if not inspect.isfunction(f):
    return
  names = set(_code_names(f.__code__))
  modules = [f.__globals__[n] for n in names if inspect.ismodule(f.__globals__.get(n))]
  for namespace in (f.__globals__, *(vars(m) for m in modules if m.__name__.startswith("lcrl"))):
    found = (namespace.get(name) for name in names)
    yield from (g for g in found if getattr(g, "__module__", "").startswith(("lcrl", "tests")))
  yield from (c.cell_contents for c in f.__closure__ or () if inspect.isfunction(c.cell_contents))


def _code_names(code: types.CodeType) -> Iterator[str]:
  yield from code.co_names
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _code_names(constant)


def checked(goldens: tuple[str, ...]) -> str:
  """The origin of the values of the closest golden entry, as a link to its file."""
  if not goldens:
    return "none"
  stem, _, entry = goldens[0].partition("/")
  path = f"tests/golden/{stem}.json"
  whose = "authors' code" if "official" in _provenance(path)[entry] else "hand calculation"
  return f"[{whose}]({path})"


@functools.cache
def _provenance(path: str) -> dict[str, str]:
  entries = json.loads((ROOT / path).read_text(encoding="utf-8"))
  return {name: entry["provenance"] for name, entry in entries.items()}

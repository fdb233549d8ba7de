"""The table of methods in the README, read off the code: `python -m experiments.methods` writes it.

A config whose docstring has a line `Tier` is a method. The docstring gives name, paper and tier;
the sections give the functions; the golden numbers are those whose adapters call these functions;
what was measured is read from the testbed study, whose methods have the configs' names.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import pathlib
import re
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from lcrl import losses, recipes
from lcrl.losses import policy, weights
from lcrl.registry import names
from lcrl.training.rl import cropping, revise

ROOT = pathlib.Path(__file__).parent.parent
MARKS = "<!-- methods: python -m experiments.methods -->\n", "<!-- end of methods -->\n"
SECTIONS = {**recipes.SLOTS._asdict(), "weights": weights, "revise": revise}
UNNAMED = 0.2  # a function that more of the configs name than this tells nothing of a method
TELLS_LITTLE = {f"weights.{name}" for name in weights.__all__}  # beside other functions
MOST_GOLDENS = 9  # a function behind more of the entries than this tells nothing of a method
SHOWN_GOLDENS = 3
TOOLS = ("lcrl.losses.draft_tree", "lcrl.data.bucketing")  # tier C: no config
TESTBED = ROOT / "experiments" / "studies" / "testbed"


@dataclasses.dataclass(frozen=True)
class Method:
  name: str
  tier: str
  source: str
  functions: Mapping[str, Callable]  # as the config names them, "rewards.step_bonus"
  place: str  # its config, or its module

  @property
  def goldens(self) -> tuple[str, ...]:
    return _goldens(f for name, f in self.functions.items() if name not in TELLS_LITTLE)

  @property
  def paper(self) -> str:
    """A link; without one a title in quotes, or what stands before the first comma or bracket."""
    if found := re.search(r"arXiv:(\d{4}\.\d{5})", self.source):
      return f"[{found[1]}](https://arxiv.org/abs/{found[1]})"
    quoted, start = re.findall(r'"([^"]*)"|([^(;,]*)', self.source)[0]
    return (quoted or start).strip()


def methods() -> list[Method]:
  """Those with a config, and the tools, by tier and name."""
  docs = {path.stem: _labelled(_module(path.stem)) for path in _configs()}
  docs = {name: doc for name, doc in docs.items() if "Tier" in doc}
  named = {name: dict(_named(_module(name).get_config().to_dict())) for name in docs}
  uses = Counter(function for functions in named.values() for function in functions)
  usual = {function for function, count in uses.items() if count > UNNAMED * len(named)}
  rows = [_method(name, doc, named[name], usual) for name, doc in docs.items()]
  return sorted([*rows, *map(_tool, TOOLS)], key=lambda row: (row.tier, row.name.lower()))


def _method(name, doc: Mapping[str, str], named: Mapping[str, Callable], usual: set[str]) -> Method:
  own = {k: f for k, f in named.items() if k not in usual}
  if not own.keys() - TELLS_LITTLE:
    own = {k: f for k, f in named.items() if k.startswith(("advantages", "losses"))}
  title = doc["title"].partition(":")[0]
  return Method(title, doc["Tier"], doc["Source"], own, f"configs/{name}.py")


def _tool(name: str) -> Method:
  module = importlib.import_module(name)
  functions = {f.__name__: f for f in _public() if f.__module__ == name}
  title, _, text = (module.__doc__ or "").partition(":")
  source, place = text.partition("Source: ")[2], f"{name.replace('.', '/')}.py"
  return Method(title, "C", source, dict(sorted(functions.items())), place)


def _module(config: str) -> types.ModuleType:
  return importlib.import_module(f"configs.{config}")


def _configs() -> list[pathlib.Path]:
  return sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")


def _labelled(module: types.ModuleType) -> dict[str, str]:
  """The docstring's first line, "title", and its lines "Label  text"; text may go on, indented."""
  title, _, rest = (module.__doc__ or "").partition("\n\n")
  lines = re.sub(r"\n +", " ", rest)
  return {"title": title, **dict(re.findall(r"^([A-Z]\w+) +(.+)$", lines, re.MULTILINE))}


def _named(config: Mapping[str, Any]) -> Iterator[tuple[str, Callable]]:
  """Every function that a method's sections name, at any depth."""
  phases = [config, *config.get("then", ())]
  for section, module in SECTIONS.items():
    for phase in phases:
      for name in names(phase.get(section)):
        function = getattr(module, name)
        home = "losses" if module is policy else module.__name__.rpartition(".")[2]
        yield f"{home}.{name}", function


def _goldens(functions: Iterable[Callable]) -> tuple[str, ...]:
  """Golden entries whose adapter calls one of the functions, or the bare function behind it: first
  those that call little else. Functions that stand behind many entries say nothing."""
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
  """The public functions that `function` mentions, itself or by helpers, itself included."""
  seen: set[Callable] = set()
  near = {function}
  while near:
    seen |= near
    through = {f for f in near if f is function or f not in _public()}
    near = {g for f in through for g in _mentioned(f)} - seen
  return seen & _public()


@functools.cache
def _public() -> set[Callable]:
  """What the slots, the losses and the tools of tier C offer."""
  modules = [*SECTIONS.values(), losses, cropping, *map(importlib.import_module, TOOLS)]
  found = {vars(m).get(name) for m in modules for name in getattr(m, "__all__", vars(m))}
  return {f for f in found if inspect.isfunction(f) and not f.__name__.startswith("_")}


def _mentioned(f: Callable) -> Iterator[Callable]:
  """The project's functions that its code, inner functions included, and its closure refer to."""
  if not inspect.isfunction(f):
    return
  names = set(_code_names(f.__code__))
  modules = [f.__globals__[n] for n in names if inspect.ismodule(f.__globals__.get(n))]
  for place in (f.__globals__, *(vars(m) for m in modules if m.__name__.startswith("lcrl"))):
    found = (place.get(name) for name in names)
    yield from (g for g in found if getattr(g, "__module__", "").startswith(("lcrl", "tests")))
  yield from (c.cell_contents for c in f.__closure__ or () if inspect.isfunction(c.cell_contents))


def _code_names(code: types.CodeType) -> Iterator[str]:
  yield from code.co_names
  for constant in code.co_consts:
    if isinstance(constant, types.CodeType):
      yield from _code_names(constant)


def _measured() -> dict[str, str]:
  """Method -> accuracy and tokens on the testbed, from the good start and from the weak one, at the
  coefficient of the best score; nothing before the study has results."""
  from experiments.studies.testbed import report

  if not (TESTBED / "results.json").exists():
    return {}
  results, starts = (json.loads((TESTBED / f"{n}.json").read_text()) for n in ("results", "starts"))
  best: dict[str, tuple[float, str]] = {}
  groups = report.group(results)
  for name, value in {key[:2] for key in groups}:
    rows = [groups[name, value, s] for s in report.STARTS if (name, value, s) in groups]
    score = np.mean([report.score(starts, seeds) for seeds in rows])
    text = "; ".join(
      f"{100 * report.mean(seeds, 'accuracy'):.1f} % at {report.mean(seeds, 'tokens'):.1f}"
      for seeds in rows
    )
    best[name] = max(best.get(name, (-np.inf, "")), (float(score), text))
  return {name: text for name, (_, text) in best.items()}


def table() -> str:
  """Markdown; links lead from the repository's root."""
  measured = _measured()
  lines = [
    "| method | tier | paper | functions | config | golden numbers | testbed |",
    "|---|---|---|---|---|---|---|",
  ]
  for m in methods():
    functions = [f"[`{n}`]({_home(f)})" for n, f in m.functions.items()]
    stem = pathlib.Path(m.place).stem
    goldens = ", ".join(f"`{key}`" for key in m.goldens[:SHOWN_GOLDENS]) or "none"
    if more := len(m.goldens[SHOWN_GOLDENS:]):
      goldens += f" and {more} more"
    cells = (
      m.name,
      m.tier,
      m.paper,
      ", ".join(functions),
      f"[`{stem}`]({m.place})" if m.tier != "C" else "none",
      goldens,
      measured.get(stem, "not run"),
    )
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


def summary() -> str:
  """The same methods as plain text, a line each: name, paper, functions, config."""
  rows = [
    (m.name, re.sub(r"\[(.+)\]\(.+\)", r"\1", m.paper), ", ".join(m.functions), m.place)
    for m in methods()
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  pad = lambda row: "  ".join(map(str.ljust, row, widths)).rstrip()
  return "\n".join(map(pad, rows))


def _home(function: Callable) -> str:
  return str(pathlib.Path(inspect.getfile(function)).relative_to(ROOT))


def updated(readme: str) -> str:
  """The README with the table between its marks."""
  before, rest = readme.split(MARKS[0])
  _, after = rest.split(MARKS[1])
  return before + MARKS[0] + "\n" + table() + "\n" + MARKS[1] + after


if __name__ == "__main__":
  path = ROOT / "README.md"
  path.write_text(updated(path.read_text()))

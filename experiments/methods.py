"""METHODS.md and the short table of the README: `python -m experiments.methods` writes both.

A config whose docstring has a line `Tier` is a method. The docstring gives its name, idea, paper
and tier; the sections give its functions; golden values are found by the functions that their
adapters call; measurements come from the testbed study, whose methods have the configs' names.
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

from experiments import configs
from lcrl import losses, recipes
from lcrl.losses import policy, weights
from lcrl.registry import names
from lcrl.training.rl import revise

ROOT = pathlib.Path(__file__).parent.parent
PAGE, README = ROOT / "METHODS.md", ROOT / "README.md"
MARKS = "<!-- methods: python -m experiments.methods -->\n", "<!-- end of methods -->\n"
IN_README = ("l1_exact", "laser_d", "kimi", "thinkprune", "dapo", "gfpo_shortest", "dler", "gspo")
SECTIONS = {**recipes.SLOTS._asdict(), "weights": weights, "revise": revise}
UNNAMED = 0.2  # a function that more of the configs name than this tells nothing of a method
TELLS_LITTLE = {f"weights.{name}" for name in weights.__all__}  # beside other functions
MOST_GOLDENS = 9  # a function behind more of the entries than this tells nothing of a method
TOOLS = ("lcrl.losses.draft_tree", "lcrl.data.bucketing")  # tier C: no config
TESTBED = ROOT / "experiments" / "studies" / "testbed"
TESTBED_NAMES = {"dler_da": "da_dler"}  # where the study's name is not the config's
HEAD = """# Methods

`python -m experiments.methods` writes this page from the code.

A method is a choice of five stages: budget, reward, filter, advantage and loss. Some methods also
change rollouts before they are rewarded (`revise`), and `then` replaces any section after a given
number of steps. Each method has a config in its paper's own setting. `--config=configs/X.py:smoke`
runs it on a laptop in under a minute, `--config=configs/X.py:variant` chooses between the variants
of one paper, and `:variant,smoke` does both.

- **Functions** are those that set the method apart; functions that many methods use are left out.
- **Checked against** links stored values. They come from the authors' code or from a calculation by
  hand. `python -m tests.goldens tests/golden/*.json` compares the functions with all of them.
- **Testbed** is accuracy and mean tokens on short sums with a known shortest solution, from a
  strong and from a weak initial policy, at each method's best coefficient. [The
  study](experiments/studies/testbed/README.md) describes it.
"""
TIERS = {
  "A": "The paper's text or code was read. The config names what was not available.",
  "B": "The paper does not publish a signal or a constant. The config names the substitute, so "
  "results say nothing about the paper's own.",
  "C": "There are functions and tests, but no config.",
}


@dataclasses.dataclass(frozen=True)
class Method:
  key: str  # the name of its config, as in `configs.variants`, or of its module
  name: str
  idea: str
  tier: str
  source: str
  functions: Mapping[str, Callable]  # as the config names them, "rewards.step_bonus"
  config: str  # a link to it; "none" for a module
  goldens: tuple[str, ...]

  @property
  def paper(self) -> str:
    """A link; without one a title in quotes, or what stands before the first comma or bracket."""
    if found := re.search(r"arXiv:(\d{4}\.\d{5})", self.source):
      return f"[{found[1]}](https://arxiv.org/abs/{found[1]})"
    quoted, start = re.findall(r'"([^"]*)"|([^(;,]*)', self.source)[0]
    return (quoted or start).strip()


def methods() -> list[Method]:
  """Those with a config, and the tools, by tier and name."""
  docs = {name: _labelled(one) for name, one in configs.variants().items()}
  docs = {name: doc for name, doc in docs.items() if "Tier" in doc}
  named = {name: dict(_named(configs.variants()[name].config())) for name in docs}
  uses = Counter(function for functions in named.values() for function in functions)
  usual = {function for function, count in uses.items() if count > UNNAMED * len(named)}
  rows = [_method(name, doc, named[name], usual) for name, doc in docs.items()]
  return sorted([*rows, *map(_tool, TOOLS)], key=lambda row: (row.tier, row.name.lower()))


def _method(key, doc: Mapping[str, str], named: Mapping[str, Callable], usual: set[str]) -> Method:
  own = {k: f for k, f in named.items() if k not in usual}
  if not own.keys() - TELLS_LITTLE:
    own = {k: f for k, f in named.items() if k.startswith(("advantages", "losses"))}
  goldens = _goldens(f for k, f in own.items() if k not in TELLS_LITTLE)
  name, _, idea = doc["title"].partition(": ")
  variant = configs.variants()[key]
  link = f"[`{variant.argument}`](configs/{variant.stem}.py)"
  return Method(key, name, idea, doc["Tier"], doc["Source"], own, link, goldens)


def _tool(key: str) -> Method:
  module = importlib.import_module(key)
  functions = dict(sorted((f.__name__, f) for f in _public() if f.__module__ == key))
  title, _, rest = (module.__doc__ or "").partition("\n\n")
  (name, _, idea), source = title.partition(": "), rest.partition("Source: ")[2]
  return Method(key, name, idea, "C", source, functions, "none", _goldens(functions.values()))


def _labelled(variant: configs.Variant) -> dict[str, str]:
  """The docstring's first line, or that of the variant, as "title"; and its lines "Label  text",
  whose text may go on, indented."""
  title, _, rest = (variant.module.__doc__ or "").partition("\n\n")
  titles = dict(re.findall(r"^  (\S+\.py\S*) +(.+)$", rest, re.MULTILINE))
  lines = re.findall(r"^([A-Z]\w+) +(.+)$", re.sub(r"\n +", " ", rest), re.MULTILINE)
  return {"title": titles.get(variant.argument, title), **dict(lines)}


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
  modules = [*SECTIONS.values(), losses, *map(importlib.import_module, TOOLS)]
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


def page() -> str:
  """All of METHODS.md."""
  rows, measured = methods(), _measured()
  parts = [HEAD]
  for tier, meaning in TIERS.items():
    cells = [
      (
        m.name,
        m.idea.rstrip("."),
        m.paper,
        ", ".join(f"[`{name}`]({_home(f)})" for name, f in m.functions.items()),
        m.config,
        _checked(m.goldens),
        measured.get(TESTBED_NAMES.get(m.key, m.key), "not run"),
      )
      for m in rows
      if m.tier == tier
    ]
    head = ("method", "idea", "paper", "functions", "config", "checked against", "testbed")
    parts.append(f"## Tier {tier}\n\n{meaning}\n\n{_table(head, cells)}")
  return "\n".join(parts)


def short_table() -> str:
  """The README's rows, one of each kind of method."""
  rows = {m.key: m for m in methods()}
  cells = [
    (m.name, m.idea.rstrip("."), m.paper, m.config) for m in map(rows.__getitem__, IN_README)
  ]
  return _table(("method", "idea", "paper", "config"), cells)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
  return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def _checked(goldens: tuple[str, ...]) -> str:
  """Where the values of the closest golden entry are from, as a link to its file."""
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


def _home(function: Callable) -> str:
  return str(pathlib.Path(inspect.getfile(function)).relative_to(ROOT))


def updated(readme: str) -> str:
  """The README with the short table between its marks."""
  before, rest = readme.split(MARKS[0])
  _, after = rest.split(MARKS[1])
  return f"{before}{MARKS[0]}\n{short_table()}\n{MARKS[1]}{after}"


if __name__ == "__main__":
  PAGE.write_text(page(), encoding="utf-8")
  README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")

"""METHODS.md and the short table of the README: `python -m experiments.methods` writes both.

A config whose docstring has a line `Tier` is a method. The docstring gives its name, idea, paper
and tier; the sections give its functions; golden values are those whose adapters call these
functions; measurements come from the testbed study, whose methods have the configs' names.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from experiments import configs
from experiments.golden_entries import SECTIONS, TOOLS, checked, goldens_of, public
from lcrl import losses
from lcrl.losses import weights
from lcrl.registry import names
from lcrl.sampling import choices

ROOT = pathlib.Path(__file__).parent.parent
PAGE, README = ROOT / "METHODS.md", ROOT / "README.md"
MARKS = "<!-- methods: python -m experiments.methods -->\n", "<!-- end of methods -->\n"
IN_README = ("l1_exact", "laser_d", "kimi", "thinkprune", "dapo", "gfpo_shortest", "dler", "gspo")
UNNAMED = 0.2  # a function in a larger share of the configs says nothing about a method
TELLS_LITTLE = {f"losses.{name}" for name in weights.__all__}  # if a method has other functions
TESTBED = ROOT / "experiments" / "studies" / "testbed"
TESTBED_NAMES = {"dler_da": "da_dler"}  # names of the study that differ from the config's
# Config -> its dial in the study, which is judged over efforts.
DIALS = {"e1_effort": "dial_mean", "inkling_effort": "dial_price", "nemotron_effort": "dial_ratio"}
HEAD = """# Methods

`python -m experiments.methods` writes this page from the code.

A method is a choice of five stages: budget, reward, filter, advantage and loss. Some methods also
change rollouts before they are rewarded (`revise`), and `then` replaces any section after a given
number of steps. Each method has a config in its paper's own setting. `--config=configs/X.py:smoke`
runs it on a laptop in under a minute, `--config=configs/X.py:variant` chooses between the variants
of one paper, and `:variant,smoke` does both.

- **Functions** are those that set the method apart, by their names in the package `lcrl`; functions
  that many methods use are left out.
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
  functions: Mapping[str, Callable]  # by their names in the package, "rewards.step_bonus"
  config: str  # a link to it; "none" for a module

  @property
  def goldens(self) -> tuple[str, ...]:
    """The golden entries that check its functions; they are stored with the tests."""
    return goldens_of(f for name, f in self.functions.items() if name not in TELLS_LITTLE)

  @property
  def paper(self) -> str:
    """A link; without one the quoted title, or the text before the first comma or bracket."""
    if match := re.search(r"arXiv:(\d{4}\.\d{5})", self.source):
      return f"[{match[1]}](https://arxiv.org/abs/{match[1]})"
    quoted, start = re.findall(r'"([^"]*)"|([^(;,]*)', self.source)[0]
    return (quoted or start).strip()


def methods() -> list[Method]:
  """The methods with a config and the tools, by tier and name."""
  docs = {name: labelled(one) for name, one in configs.variants().items()}
  docs = {name: doc for name, doc in docs.items() if "Tier" in doc}
  named = {name: dict(_named(configs.variants()[name].config())) for name in docs}
  uses = Counter(function for functions in named.values() for function in functions)
  usual = {function for function, count in uses.items() if count > UNNAMED * len(named)}
  rows = [_method(name, doc, named[name], usual) for name, doc in docs.items()]
  return sorted([*rows, *map(_tool, TOOLS)], key=lambda row: (row.tier, row.name.lower()))


def _method(key, doc: Mapping[str, str], named: Mapping[str, Callable], usual: set[str]) -> Method:
  own = {k: f for k, f in named.items() if k not in usual}
  if not own.keys() - TELLS_LITTLE:
    slots = ("advantages.", "losses.")
    own = {k: f for k, f in named.items() if k.startswith(slots) and k not in TELLS_LITTLE}
  name, _, idea = doc["title"].partition(": ")
  variant = configs.variants()[key]
  link = f"[`{variant.argument}`](configs/{variant.stem}.py)"
  return Method(key, name, idea, doc["Tier"], doc["Source"], own, link)


def _tool(key: str) -> Method:
  module = importlib.import_module(key)
  functions = dict(sorted((_importable(f), f) for f in public() if f.__module__ == key))
  title, _, rest = (module.__doc__ or "").partition("\n\n")
  (name, _, idea), source = title.partition(": "), rest.partition("Source: ")[2]
  return Method(key, name, idea, "C", source, functions, "none")


def labelled(variant: configs.Variant) -> dict[str, str]:
  """The docstring's first line, or the variant's, as "title", and its lines "Label  text" with
  their indented continuation lines."""
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
        yield _importable(function, module.__name__), function
  for name in names((config.get("sampling") or {}).get("control")):
    yield f"sampling.choices.{name}", getattr(choices, name)


def _importable(function: Callable, home: str = "") -> str:
  """The name below `lcrl` from which a user can import the function, from `lcrl.losses` if it can.

  `home` is the module in which the config names it, the one that defines it if empty.
  """
  name = function.__name__
  offered = getattr(losses, name, None) if name in losses.__all__ else None
  path = "lcrl.losses" if offered is function else home or function.__module__
  return f"{path}.{name}".removeprefix("lcrl.")


def on_testbed() -> dict[str, str]:
  """Method -> accuracy and tokens on the testbed from the good and the weak start, at the best
  coefficient; empty if the study has no results."""
  from experiments.studies.testbed import report
  from experiments.studies.testbed.claims import best_value

  if not (TESTBED / "results.json").exists():
    return {}
  results, starts = (json.loads((TESTBED / f"{n}.json").read_text()) for n in ("results", "starts"))
  groups = report.group(results)
  found = {}
  for name in dict.fromkeys(key[0] for key in groups):
    best = best_value(results, starts, name)
    rows = [groups[name, best, s] for s in report.STARTS if (name, best, s) in groups]
    found[name] = "; ".join(
      f"{100 * report.mean(seeds, 'accuracy'):.1f} % at {report.mean(seeds, 'tokens'):.1f}"
      for seeds in rows
    )
  return found | {key: f"over efforts, as `{dial}`" for key, dial in DIALS.items()}


def page() -> str:
  """All of METHODS.md."""
  rows, measured = methods(), on_testbed()
  parts = [HEAD]
  for tier, meaning in TIERS.items():
    cells = [
      (
        m.name,
        m.idea.rstrip("."),
        m.paper,
        ", ".join(f"[`{name}`]({_home(f)})" for name, f in m.functions.items()),
        m.config,
        checked(m.goldens),
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


def summary() -> str:
  """All methods as plain text, a line each: name, paper, functions, config."""
  plain = lambda text: re.sub(r"\[(.+?)\]\(.+?\)", r"\1", text)
  config = lambda m: re.sub(r"\[`(.+?)`\]\(.+?\)", r"configs/\1", m.config)
  rows = [(m.name, plain(m.paper), ", ".join(m.functions), config(m)) for m in methods()]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  pad = lambda row: "  ".join(map(str.ljust, row, widths)).rstrip()
  return "\n".join(map(pad, rows))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
  return "".join(f"| {' | '.join(row)} |\n" for row in (head, ("---",) * len(head), *rows))


def _home(function: Callable) -> str:
  return str(pathlib.Path(inspect.getfile(function)).relative_to(ROOT))


def updated(readme: str) -> str:
  """The README with a new short table between its marks."""
  before, rest = readme.split(MARKS[0])
  _, after = rest.split(MARKS[1])
  return f"{before}{MARKS[0]}\n{short_table()}\n{MARKS[1]}{after}"


if __name__ == "__main__":
  PAGE.write_text(page(), encoding="utf-8")
  README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")

"""The page of all fields of a config: `python -m experiments.fields` writes it from the code."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from lcrl.registry import annotated, hints_of, offered, parameters
from lcrl.training import fields
from lcrl.training.fields import Named, Section
from lcrl.training.sections import EvalSet
from lcrl.values import hints, said

Row = tuple[str, str, str, str]  # name, type, default, meaning
PAGE = Path(__file__).parent.parent / "CONFIG.md"
HEAD = """# Fields of a config

`python -m experiments.fields` writes this page from the code.

A config is a Python file whose `get_config(mode)` returns sections. A field of a section is set in
the file, or on the command line of any command that takes `--config`:

```sh
lcrl-train --config=configs/laser.py --workdir=runs/laser \\
  --config.reward.alpha=0.2 --config.checkpoint.keep=9 \\
  --config.sampling.control.fn=top_p --config.sampling.control.p=0.95
```

Setting a field adds its section if the file has none. `--config.eval_task=None` removes a section,
and a new `fn` clears the other fields of its section. The mode follows the file after a colon:
`--config=configs/laser.py:d,smoke` is the variant `d` in its smoke mode. `--print_config` prints
every field of the config that results, one a line, and runs nothing.

`fn` is a name on this page, or `"package.module:name"` of a function of your own that returns the
same type: stages, tasks, verifiers, signals, renderers, revisions, optimizers, policies,
tokenizers, data, pairings. Worker processes import a verifier, so its module should not import jax.

Besides its sections a config has `run`, the kind of run ("rl" if absent), and `seed`, an integer.
`learned` (runs of "rl" and "iterative") lists models by the signal that each of them supplies:
`dict(path="runs/x")` is the score of a trained reward model, or as `preference` the embeddings of a
preference model; `dict(rules="rules.json", judge="models/x")` the share of rules that a model finds
kept (without `judge`, the policy); `dict(policy="models/x")` the log-probs of another policy;
`dict(untrained=1)` a random reward model, for smoke runs.
A model in `teachers.models` is a folder of a run or of a model, or a section:
`dict(fn="run", path="runs/x", step=100)`, or one that `policy` may be. `teachers.field="domain"`
takes the models from a map, `dict(math="runs/m", code=["runs/low", "runs/high"])`.
`then` (runs of "rl" and "distill") is a list of
`dict(at=step, reward=dict(...))` and replaces sections after that number of steps. `eval_tasks`
names further sets to evaluate on, each like `eval_task`: `dict(aime=dict(fn="jsonl", ...))`.
`task` and `eval_task` have a field `long` for prompts that are longer than
`train.max_prompt_tokens`: "error" (the default) refuses them, and "skip" leaves them out and counts
them. `task.test_share=0.05` keeps that share of the prompts, chosen by a hash of their text, out of
training; evaluations use them if there is no `eval_task`.
"""


def page() -> str:
  """All of CONFIG.md."""
  parts = [HEAD, "## Sections of each kind of run\n", _overview()]
  for name, users in _sections().items():
    for section, runs in users:
      title = f"## {name}" + ("" if len(users) == 1 else f" (run: {', '.join(runs)})")
      parts += [title + "\n", *_body(name, section)]
  parts += ["## sampling.control\n", *_named(fields.CONTROL)]
  return "\n".join(parts)


def _body(name: str, section: Section) -> Iterator[str]:
  if isinstance(section, type):
    return _record(section)
  if name == "eval_task":
    return iter([f"As `task`, without `test_share`, and:\n\n{_table(_fields(EvalSet))}"])
  return _named(section)


def _overview() -> str:
  lines = ["| run | sections |", "|---|---|"]
  for run, sections in fields.SECTIONS.items():
    lines.append(f"| {run} | {', '.join(sorted(sections))} |")
  return "\n".join(lines) + "\n"


def _sections() -> dict[str, list[tuple[Section, list[str]]]]:
  """Section -> its forms, each with the kinds of run that have it."""
  users_of: dict[str, list[tuple[Section, list[str]]]] = {}
  for run, sections in fields.SECTIONS.items():
    for name, section in sections.items():
      users = users_of.setdefault(name, [])
      same = [runs for other, runs in users if other == section]
      same[0].append(run) if same else users.append((section, [run]))
  return dict(sorted(users_of.items()))


def _record(record: type) -> Iterator[str]:
  yield _table(_fields(record))


def _fields(record: type) -> list[Row]:
  """The fields of a dataclass; the comment behind a field is its meaning."""
  source = "\n".join(inspect.getsource(kind) for kind in reversed(record.__mro__[:-1]))
  meaning = dict(re.findall(r"^  (\w+):[^#\n]*(?:# type: [^#\n]*)?# (.+)$", source, re.MULTILINE))
  rows = []
  for field in dataclasses.fields(record):
    default = "required" if field.default is dataclasses.MISSING else _default(field.default)
    rows.append((field.name, said(hints(record)[field.name]), default, meaning.get(field.name, "")))
  return rows


def _named(section: Named) -> Iterator[str]:
  """The functions that a section can name, then the functions for their arguments."""
  waiting, listed = offered(section.module, section.gives), list[str]()
  while waiting:
    name = waiting.pop(0)
    if name in listed:
      continue
    listed.append(name)
    function = getattr(section.module, name)
    waiting += [n for key in parameters(function) for n in _parts(section.module, function, key)]
    yield f"### {name}\n\n{_described(function)}\n"
    if rows := list(_arguments(function, section.run)):
      yield _table(rows)


def _parts(module: ModuleType, function: Callable, argument: str) -> list[str]:
  """The functions of the module that return the type of an argument."""
  kind = annotated(function, argument)
  names = offered(module, kind)
  plain = re.fullmatch(r"(int|float|bool|str|None|[ |]|jax\.Array|Array|Any)*", str(kind))
  return [] if plain or len(names) == len(offered(module)) else names


def _arguments(function: Callable, run: tuple[str, ...]) -> Iterator[Row]:
  meaning = _meanings(function)
  record = getattr(function, "record", None)
  fields = list(_fields(record)) if record else []
  yield from fields
  known = {*run, "tokenizer", *(name for name, *_ in fields)}
  for name, parameter in parameters(function).items():
    if name in known or (record and parameter.kind is parameter.VAR_KEYWORD):
      continue
    kind = said(hints_of(function)[name]) if name in hints_of(function) else "anything"
    default = "required" if parameter.default is parameter.empty else _default(parameter.default)
    if parameter.kind is parameter.VAR_KEYWORD:
      name, default = f"**{name}", ""
    yield name, kind, default, meaning.get(name.strip("*"), "")


def _default(value: Any) -> str:
  return f"`{value.__name__ if inspect.isfunction(value) else value!r}`"


def _meanings(function: Callable, depth: int = 0) -> dict[str, str]:
  """Argument -> its text under `Args:` in the docstring, or in one that the docstring refers to."""
  doc, home = inspect.getdoc(function) or "", inspect.getmodule(function)
  meanings: dict[str, str] = {}
  if depth < 2:
    others = (getattr(home, name, None) for name in re.findall(r"`(\w+)`", doc))
    for other in filter(inspect.isfunction, others):
      meanings |= _meanings(other, depth + 1)
  block = re.search(r"^Args:\n((?:  .*\n?)+)", doc, re.MULTILINE)
  text = re.sub(r"\n    +", " ", block[1]) if block else ""
  for names, meaning in re.findall(r"^  ([\w*, ]+): (.+)$", text, re.MULTILINE):
    meanings |= {name.strip(" *"): meaning for name in names.split(",")}
  return meanings


def _described(function: Callable) -> str:
  """The first paragraph of a docstring, and the formula of the function that it refers to."""
  first = (inspect.getdoc(function) or "").split("\n\n")[0]
  home = inspect.getmodule(function)
  others = (getattr(home, name, None) for name in re.findall(r"`(\w+)`", first))
  formulas = [
    re.split(r"\n+(?:Args|Source|Returns|Raises)\b|\n+>>>", inspect.getdoc(other) or "")[0].rstrip()
    for other in filter(inspect.isfunction, others)
  ]
  return "\n\n".join([first.replace("\n", " "), *(f"```text\n{text}\n```" for text in formulas)])


def _table(rows: list[Row]) -> str:
  lines = ["| field | type | default | meaning |", "|---|---|---|---|"]
  lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  PAGE.write_text(page(), encoding="utf-8")
  print(PAGE)

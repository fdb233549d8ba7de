"""Writes the pages of the reference, one a module, from signatures, docstrings and configs."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from docs.pages import table
from docs.reference import Entry, by_module, entries, module_doc, named, of_papers, uses
from docs.text import inline, markdown


def pages() -> dict[str, str]:
  """Name -> Markdown of each page."""
  return {name: _page(name, shown) for name, shown in by_module().items()}


def _page(name: str, shown: list[Entry]) -> str:
  parts = [f"# {name}", _about(name)]
  homes: dict[str, list[Entry]] = {}
  for entry in shown:
    home = getattr(entry.value, "__module__", name) if callable(entry.value) else name
    homes.setdefault(home, []).append(entry)
  for home, group in sorted(homes.items()):
    if home != name:
      parts += [f"## {home.removeprefix(name + '.')}", _about(home)]
    elif len(homes) > 1:
      parts.append("## here")
    parts += map(_entry, group)
  return "\n\n".join(parts) + "\n"


def _about(module: str) -> str:
  return markdown(module_doc(module), _links(module))


def _links(home: str, own: Collection[str] = ()) -> Callable[[str], str]:
  """A name in backticks becomes a link if it is a public name, and no parameter (`own`)."""

  def link(text: str) -> str:
    entry = None if text in own else named(text, home)
    return f"{{py:obj}}`{text} <{entry.path}>`" if entry else f"`{text}`"

  return link


def _entry(entry: Entry) -> str:
  kind = "function" if entry.is_function else "class" if callable(entry.value) else "data"
  head = entry.name + (signature(entry.value) if entry.is_function else "")
  body = "\n\n".join(_body(entry))
  return f"::::{{py:{kind}}} {head}\n:module: {entry.home}\n\n{body}\n::::"


def _body(entry: Entry) -> Iterator[str]:
  if not callable(entry.value):
    yield f"```python\n{entry.name} = {_short(entry.value)}\n```"
    return
  own = {entry.name, *(inspect.signature(entry.value).parameters if entry.is_function else ())}
  yield markdown(entry.doc, _links(entry.home, own))
  if inspect.isclass(entry.value):
    yield from _members(entry.value)
  if several := of_papers().get(id(entry.value)):
    yield f"In {', '.join(f'{method.name} ({method.paper})' for method in several)}."
  if use := uses().get(id(entry.value)):
    where = f"configs/{use.variant.argument}"
    text = f"c.{use.section} = {written(use.spec)}"
    yield f"In `{where}`, of which `make test` runs the smoke mode:\n\n```python\n{text}\n```"


def _members(cls: type) -> Iterator[str]:
  """The fields of a record with the comments behind them, and the methods."""
  source = inspect.getsource(cls)
  rows = re.findall(r"^  (\w+)(?:: ([^#=\n]+?))?(?: = ([^#\n]+?))? *(?:# (.+))?$", source, re.M)
  known = {*getattr(cls, "__annotations__", ()), *getattr(cls, "__members__", ())}
  fields = [
    f"| `{name}` | {_code(kind)} | {_code(default)} | {inline(meaning)} |"
    for name, kind, default, meaning in rows
    if name in known
  ]
  if fields:
    yield "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *fields])
  for name, value in vars(cls).items():
    doc = inspect.cleandoc(getattr(value, "__doc__", None) or "")
    if isinstance(value, types.FunctionType | property) and not name.startswith("_") and doc:
      shown = name if isinstance(value, property) else name + signature(value)
      yield f"- `{shown}`: {inline(' '.join(doc.partition('>>>')[0].split()))}"


def _code(text: str) -> str:
  return f"`{text.strip()}`".replace("|", "\\|") if text.strip() else ""


class _Text(str):
  """Shown without quotes."""

  __slots__ = ()
  __repr__ = str.__str__


def signature(function: Any) -> str:
  """The signature as it stands in the source; a function as a default is shown by its name."""
  found = inspect.signature(function)
  plain = lambda x: _Text(x) if isinstance(x, str) else x
  default = lambda x: _Text(x.__name__) if callable(x) and x is not inspect.Parameter.empty else x
  parameters = [
    p.replace(annotation=plain(p.annotation), default=default(p.default))
    for p in found.parameters.values()
  ]
  shown = found.replace(parameters=parameters, return_annotation=plain(found.return_annotation))
  return re.sub(r"<[^<>]* object at 0x\w+>|<object[^<>]*>", "...", str(shown))


def written(spec: Any, width: int = 84) -> str:
  """A section as a config file would have it; a long one takes a line for each field."""
  if not isinstance(spec, Mapping):
    return _short(spec)
  spec = dict(sorted(spec.items(), key=lambda item: item[0] != "fn"))
  line = f"dict({', '.join(f'{key}={written(value, 10**6)}' for key, value in spec.items())})"
  if len(line) <= width:
    return line
  rows = (f"{key}={written(value, width)},".replace("\n", "\n  ") for key, value in spec.items())
  return "dict(\n" + "".join(f"  {row}\n" for row in rows) + ")"


def _short(value: Any, most: int = 200) -> str:
  text = repr(value)
  return text if len(text) <= most else text[: most - 3] + "..."


INDEX = """# Reference

{count} public names: all that a module of `lcrl` lists in its `__all__`. Bare functions take and
return arrays. A function that returns a `Stage` makes what a config names, and shows that section.

{modules}

```{{toctree}}
:hidden:

{names}
```
"""


def index() -> str:
  """The page with the modules, their first lines and how many names each shows."""
  about = lambda name: inline(" ".join(module_doc(name).partition("\n\n")[0].split()))
  rows = [(f"[{n}]({n}.md)", str(len(shown)), about(n)) for n, shown in by_module().items()]
  modules = table(("module", "names", "about"), rows)
  return INDEX.format(count=len(entries()), modules=modules, names="\n".join(by_module()))

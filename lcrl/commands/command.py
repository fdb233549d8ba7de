"""Shared parts of all commands: the flag --config with its overrides, and errors in one line.

  --config=configs/laser.py:d,smoke  a file, and the mode for its get_config: a variant, a size
  --config.reward.alpha=0.2          sets a field of any section, also one that the file leaves out
  --config.reward.fn=acoer           names another function, which clears the section's other fields
  --config.then[0].at=200            sets a field of an element of a list
  --config.eval_task=None            removes a section

CONFIG.md lists all fields.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import app, flags
from absl import logging as absl_logging

from lcrl.commands import SHIPPED

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # --help lists --config among the flags of a command
OVERRIDE = re.compile(r"--?config\.([^=]+)(?:=(.*))?$", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """A config file and its overrides from the command line."""

  path: str  # of the file, or path:mode
  overrides: tuple[tuple[str, str], ...] = ()

  @property
  def name(self) -> str:
    """The file's name, and the variant if the mode names one: "laser_d" of configs/laser.py:d."""
    from lcrl.commands.modes import SIZES

    path, _, mode = self.path.partition(":")
    variants = (part for part in mode.split(",") if part and part not in SIZES)
    return "_".join([Path(path).stem, *variants])

  def to_dict(self) -> dict[str, Any]:
    """Raises ValueError for a file, a mode or a field that does not exist."""
    module, mode = load(self.path)
    page = module.get_config(*([mode] if mode else []))
    config = page if isinstance(page, dict) else page.to_dict()
    # Functions come first, outer before inner ones: the types of other fields depend on them.
    order = lambda one: (not one[0].endswith(".fn"), one[0].count(".") * one[0].endswith(".fn"))
    for name, text in sorted(self.overrides, key=order):
      override(config, name, text)
    return config


def define_config(*, required: bool = False) -> None:
  """Defines the flag --config. Its value is an `Experiment`, whose file is read by `to_dict`."""
  overrides: list[tuple[str, str]] = []
  sys.argv[1:] = take_overrides(sys.argv[1:], overrides)

  class Parser(flags.ArgumentParser):
    def parse(self, argument: str) -> Experiment:
      return Experiment(argument, tuple(overrides))

  flags.DEFINE(Parser(), "config", None, "A config file, and its mode after a colon.")
  if required:
    flags.mark_flag_as_required("config")


def take_overrides(arguments: Sequence[str], into: list[tuple[str, str]]) -> list[str]:
  """Moves arguments like --config.x.y=1 or --config.x.y 1 `into` a list; returns the others."""
  rest, remaining = [], list(arguments)
  while remaining:
    argument = remaining.pop(0)
    if not (match := OVERRIDE.match(argument)):
      rest.append(argument)
      continue
    name, text = match.groups()
    if text is None:
      text = remaining.pop(0) if remaining and not remaining[0].startswith("--") else "True"
    into.append((name, text))
  return rest


def read_call(text: str, flag: str) -> dict[str, Any]:
  """A section of a config from a call with keywords; texts that are no words need quotes.

  >>> read_call("budget_forcing(max_thinking_tokens=64, wait_tokens='Wait a moment')", "control")
  {'fn': 'budget_forcing', 'max_thinking_tokens': 64, 'wait_tokens': 'Wait a moment'}
  >>> read_call("mirostat_v2(tau=3.0)", "control")
  {'fn': 'mirostat_v2', 'tau': 3.0}

  Raises:
    ValueError: the text is no name and no such call.
  """
  section, *more = read_calls(text, flag)
  if more:
    raise ValueError(f"--{flag} names one thing, got {text!r:.80}.")
  return section


def read_calls(text: str, flag: str) -> list[dict[str, Any]]:
  """Sections from calls with commas between them. A value may be a call, or a word, for a text.

  >>> read_calls("yap_score, ruler(target=words), pass_at_k(k=(1, 4))", "measures")
  [{'fn': 'yap_score'}, {'fn': 'ruler', 'target': 'words'}, {'fn': 'pass_at_k', 'k': (1, 4)}]
  """
  source = f"[{text}]"

  def value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
      return section(node)
    if isinstance(node, ast.Tuple | ast.List):
      return tuple(map(value, node.elts))
    try:
      return ast.literal_eval(node)
    except ValueError:
      return ast.get_source_segment(source, node)

  def section(node: ast.expr) -> dict[str, Any]:
    call = ast.Call(node, [], []) if isinstance(node, ast.Name) else node
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
      raise ValueError
    if not all(keyword.arg for keyword in call.keywords):
      raise ValueError
    return {"fn": call.func.id, **{str(k.arg): value(k.value) for k in call.keywords}}

  try:
    tree = ast.parse(source, mode="eval").body
    if not isinstance(tree, ast.List) or not tree.elts:
      raise ValueError
    return [section(node) for node in tree.elts]
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    raise ValueError(
      f"--{flag}={text!r:.80} has to be a name, or a call such as top_p(p=0.9)."
    ) from None


def find(argument: str) -> Path:
  """The config file that --config names, without a mode: here, or in the installed package."""
  from lcrl.values import nearest

  path = argument.partition(":")[0]
  for file in (Path(path), SHIPPED / path):
    if file.is_file():
      return file
  there = [*Path(path).parent.glob("*.py"), *SHIPPED.glob("configs/*.py")]
  names = [
    str(x.relative_to(SHIPPED) if SHIPPED in x.parents else x) for x in there if x.name[0] != "_"
  ]
  raise ValueError(f"--config={argument}: there is no file {path}{nearest(path, names) or '.'}")


def load(argument: str) -> tuple[ModuleType, str]:
  """The module of a config file, and the mode that stands after its path, if any.

  A path such as configs/laser.py that is not here names a config of the installed package.
  """
  path, _, mode = argument.partition(":")
  file = find(argument)
  if (file.parent / "__init__.py").is_file():  # a config imports others of its package
    root = str(file.parent.parent.resolve())
    if sys.path[:1] != [root]:
      sys.path.insert(0, root)
  if SHIPPED.is_dir() and str(SHIPPED) not in sys.path:
    sys.path.append(str(SHIPPED))
  spec = importlib.util.spec_from_file_location(file.stem, file)
  if spec is None or spec.loader is None:
    raise ValueError(f"--config={argument}: {path} is no Python file.")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ValueError(f"--config={argument}: {path} has no get_config.")
  return module, mode


def override(config: dict[str, Any], name: str, text: str) -> None:
  """Sets the field at a dotted name to `text`, parsed by the type of the field."""
  from lcrl.training import fields
  from lcrl.values import parse

  *above, last = path = tuple(name.replace("[", ".").replace("]", "").split("."))
  parent: Any = config
  for depth, key in enumerate(above):
    if isinstance(parent, dict) and parent.get(key) is None:
      parent[key] = {}
    elif isinstance(parent, dict) and isinstance(parent[key], tuple):
      parent[key] = list(parent[key])
    parent = _part(parent, key, ".".join(path[:depth]))
  value = parse(text, fields.hint(config, path))
  if len(path) == 1 and value is None:
    config.pop(last, None)
  elif isinstance(parent, list):
    _part(parent, last, ".".join(above))
    parent[int(last)] = value
  elif not isinstance(parent, dict):
    raise ValueError(f"--config.{name}: {'.'.join(above)} is {parent!r:.80}, no section.")
  else:
    if last == "fn" and parent.get("fn") != value:
      parent.clear()
    parent[last] = value


def _part(parent: Any, key: str, at: str) -> Any:
  if isinstance(parent, dict):
    return parent[key]
  if isinstance(parent, list) and key.isdigit() and int(key) < len(parent):
    return parent[int(key)]
  raise ValueError(f"--config.{at}.{key}: {at} is {parent!r:.80}, which has no {key!r}.")


def run(main: Callable[[Sequence[str]], Any], name: str) -> None:
  """`app.run` with errors of the user in one line and without messages of the libraries.

  --traceback shows where an error comes from, and --verbosity=0 the messages.
  """
  flags.DEFINE_bool("traceback", False, "Show where an error comes from.")

  def guarded(argv: Sequence[str]) -> Any:
    if not FLAGS["verbosity"].present:  # Orbax logs every file that it writes
      absl_logging.set_verbosity(absl_logging.WARNING)
      absl_logging.get_absl_handler().setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    try:
      return main(argv)
    except KeyboardInterrupt:
      print(f"{name}: interrupted.", file=sys.stderr)
      raise SystemExit(130) from None
    except Exception as error:
      if FLAGS.traceback or not _of_the_user(error):
        raise
      raise SystemExit(f"{name}: {' '.join(str(error).split())}") from None

  app.run(guarded)


def _of_the_user(error: Exception) -> bool:
  """True if values, files, a template or a diverged run caused the error, not a bug."""
  imported = {"lcrl.training.checkpoint": "CheckpointError", "jinja2": "TemplateError"}
  more = (getattr(sys.modules[x], name) for x, name in imported.items() if x in sys.modules)
  return isinstance(error, (ValueError, OSError, FloatingPointError, *more))

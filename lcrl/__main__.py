"""What is installed: `python -m lcrl --version`, `python -m lcrl --methods`."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Sequence

import lcrl
from lcrl import recipes, registry
from lcrl.commands import SHIPPED


def methods() -> str:
  """One line a method: its name, paper, functions and config.

  In a wheel METHODS.md; without it, or what the configs import, the stages of each slot.
  """
  try:
    from experiments.methods import summary
  except ImportError:
    page = SHIPPED / "METHODS.md"
    return page.read_text(encoding="utf-8") if page.is_file() else stages()
  return summary()


def stages() -> str:
  """One line a stage, by slot: its name and the first line of its docstring."""
  lines = []
  for slot, module in recipes.SLOTS._asdict().items():
    names = registry.offered(module, recipes.Stage)
    docs = (inspect.getdoc(getattr(module, name)) or "" for name in names)
    rows = [
      f"  {name:28} {doc.partition(chr(10))[0]}" for name, doc in zip(names, docs, strict=True)
    ]
    lines += [slot, *rows]
  return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(prog="lcrl", description=lcrl.__doc__)
  parser.add_argument("--version", action="version", version=lcrl.__version__)
  parser.add_argument("--methods", action="store_true", help="list papers, functions and configs")
  if parser.parse_args(arguments).methods:
    print(methods())
  else:
    parser.print_help()


if __name__ == "__main__":
  main()

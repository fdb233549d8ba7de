"""Resolved configs as text: `python -m experiments.configs` renews tests/golden/configs.

One file a config holds each field of its full mode, what its smoke mode changes, and its sweep. So a
change of a section that several configs share shows in each of them.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "configs"
ORDER = (
  "run seed budget reward filter advantage loss weights then revise monitor learned pairing teacher "
  "reference lora policy tokenizer task eval_task data batches sampling optimizer mesh round train"
).split()


def page(config: Mapping[str, Any]) -> list[str]:
  """A line `section.field = value` for every field, in the order of a config file."""
  rank = {name: place for place, name in enumerate(ORDER)}
  sections = sorted(config, key=lambda name: (rank.get(name, len(rank)), name))
  return [
    f"{field} = {value!r}" for name in sections for field, value in _fields(name, config[name])
  ]


def _fields(name: str, value: Any) -> Iterator[tuple[str, Any]]:
  if isinstance(value, Mapping) and value:
    for key in sorted(value, key=lambda key: (key != "fn", key)):
      yield from _fields(f"{name}.{key}", value[key])
  elif isinstance(value, list | tuple) and any(isinstance(part, Mapping) for part in value):
    for place, part in enumerate(value):
      yield from _fields(f"{name}[{place}]", part)
  else:
    yield name, value


def names() -> list[str]:
  """All configs."""
  helpers = ("__init__", "smoke")
  return sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in helpers)


def golden(name: str) -> str:
  """What the golden file of a config holds."""
  module = importlib.import_module(f"configs.{name}")
  full, smoke = page(module.get_config().to_dict()), page(module.get_config("smoke").to_dict())
  changed = [line for line in smoke if line not in full]
  kept = {line.partition(" = ")[0] for line in smoke}
  gone = [
    f"without {field}" for field in (x.partition(" = ")[0] for x in full) if field not in kept
  ]
  points: list[dict[str, Any]] = []
  getattr(module, "sweep", lambda add: None)(points.append)
  sweep = [", ".join(f"{field} = {value!r}" for field, value in point.items()) for point in points]
  lines = ["# full", *full, "# smoke", *changed, *gone, "# sweep", *sweep]
  return "\n".join(lines).replace(f"{ROOT}/", "") + "\n"


def write() -> None:
  GOLDEN.mkdir(exist_ok=True)
  for file in GOLDEN.glob("*.txt"):
    file.unlink()
  for name in names():
    (GOLDEN / f"{name}.txt").write_text(golden(name), encoding="utf-8")


if __name__ == "__main__":
  write()

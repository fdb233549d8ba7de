"""Resolved configs as text: `python -m experiments.configs` renews tests/golden/configs.

The file of a config holds every field of its full mode, the changes of its smoke mode, and its
sweep. So a change of a shared section is visible in the file of each config that uses it.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from lcrl.commands.config_text import page
from lcrl.commands.sweep import points

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "configs"
HELPERS = ("__init__", "common", "smoke")


class Variant(NamedTuple):
  """One variant of a config file; most files have only one."""

  module: ModuleType
  variant: str  # one of the module's VARIANTS; empty if it has none

  @property
  def stem(self) -> str:
    return self.module.__name__.rpartition(".")[2]

  @property
  def name(self) -> str:
    """Such as "laser_d" of configs/laser.py:d."""
    return f"{self.stem}_{self.variant}" if self.variant else self.stem

  @property
  def argument(self) -> str:
    """The part after configs/ in the flag --config."""
    first = getattr(self.module, "VARIANTS", ("",))[0]
    return f"{self.stem}.py" if self.variant == first else f"{self.stem}.py:{self.variant}"

  def config(self, size: str = "full") -> dict[str, Any]:
    return self.module.get_config(f"{self.variant},{size}".lstrip(",")).to_dict()

  def sweep(self) -> list[dict[str, Any]]:
    return points(self.module, self.variant)


@functools.cache
def variants() -> dict[str, Variant]:
  """Name -> variant, of all config files."""
  stems = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem not in HELPERS)
  modules = [importlib.import_module(f"configs.{stem}") for stem in stems]
  pages = [Variant(m, variant) for m in modules for variant in getattr(m, "VARIANTS", ("",))]
  return {page.name: page for page in pages}


def golden(variant: Variant) -> str:
  """The text of the golden file of a config."""
  full, smoke = page(variant.config()), page(variant.config("smoke"))
  changed = [line for line in smoke if line not in full]
  kept = {line.partition(" = ")[0] for line in smoke}
  gone = [
    f"without {field}" for field in (x.partition(" = ")[0] for x in full) if field not in kept
  ]
  sweep = [", ".join(f"{k} = {v!r}" for k, v in point.items()) for point in variant.sweep()]
  lines = ["# full", *full, "# smoke", *changed, *gone, "# sweep", *sweep]
  return "\n".join(lines).replace(f"{ROOT}/", "") + "\n"


def write() -> None:
  GOLDEN.mkdir(exist_ok=True)
  for file in GOLDEN.glob("*.txt"):
    file.unlink()
  for name, variant in variants().items():
    (GOLDEN / f"{name}.txt").write_text(golden(variant), encoding="utf-8")


if __name__ == "__main__":
  write()

"""Where every config in a paper's setting fits: writes fit.json and fit.md beside this file, and
the line `Fits` of each config's docstring.

python -m experiments.studies.fit.table

All is arithmetic (`lcrl.training.analysis.arithmetic`), without a device: a few minutes.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from experiments.configs import ROOT, Variant, variants
from lcrl.commands import fit
from lcrl.training.analysis.roofline import GIB

HERE = Path(__file__).parent
STORED, PAGE = HERE / "fit.json", HERE / "fit.md"
KINDS = {
  "GPU": [f"h100:{count}" for count in (1, 2, 4, 8, 16, 32, 64)],
  "TPU": [f"v5p:{grid}" for grid in ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8")],
}
MACHINE, HOUR = 8, 3600  # devices; seconds
HEAD = """# Where the configs fit

`python -m experiments.studies.fit.table` writes this page and the line `Fits` of each config.

The least hardware of two kinds, H100s with 80 GB and v5p slices, on which each config in its
paper's setting fits with a tenth of a device to spare. Memory is that of the fullest device.
Seconds are a roofline of one step (data-sheet peaks of computing, memory and links, all at once) in
which every response is as long as it may be; a real step is slower, or shorter. Where a config fits
nothing as it stands, fields that make it fit are named, for 8 devices or more; they change no
gradient.

[`lcrl-fit`](../../../lcrl/commands/fit.py) answers for other hardware,
models and lengths, and says what to change:

    lcrl-fit --config=configs/laser.py:d --topology=h100:4
    lcrl-fit --config=configs/laser.py:d --topology=v5p:2x2x4 --arithmetic

Without `--arithmetic` it compiles the step for TPUs. The last table compares both.
"""


class Place(NamedTuple):
  """Hardware for a config, and what has to change in the config for it."""

  topology: str
  changes: dict[str, Any]


def in_papers() -> dict[str, Variant]:
  """The variants whose policy is a model that has to be fetched."""
  path = lambda variant: variant.config()["policy"].get("path", "")
  return {name: v for name, v in variants().items() if path(v).startswith("models/")}


@functools.cache
def _config(name: str) -> dict[str, Any]:
  return variants()[name].config()


def changed(name: str, place: Place) -> dict[str, Any]:
  """The config of a variant with the changes of a place."""
  config = copy.deepcopy(_config(name))
  for field, value in place.changes.items():
    section, _, key = field.partition(".")
    if field != "train.micro_tokens":
      config.setdefault(section, {})[key] = value
  return config


def facts(name: str, place: Place) -> dict[str, Any]:
  """What `lcrl-fit` calculates for a variant."""
  return _facts(name, place.topology, json.dumps(place.changes))


@functools.cache
def _facts(name: str, topology: str, changes: str) -> dict[str, Any]:
  place = Place(topology, json.loads(changes))
  config, micro = changed(name, place), place.changes.get("train.micro_tokens")
  return fit.calculated(config, topology, fit.shape_of(config["policy"]), micro_tokens=micro)


def find(name: str, topologies: Iterable[str]) -> Place | None:
  """The first topology that holds a variant as it is; else the first of a whole machine on which
  what is advised makes it fit, if there is one where a step may take less than HOUR."""
  tried = [both for topology in topologies if (both := solve(name, topology))]
  as_it_is = [place for place, _ in tried if not place.changes]
  large = [both for both in tried if both[1]["devices"] >= MACHINE]
  quick = [place for place, found in large if found["roofline_s"] < HOUR]
  return next(iter([*as_it_is, *quick, *(place for place, _ in large)]), None)


def solve(name: str, topology: str) -> tuple[Place, dict[str, Any]] | None:
  """What has to change for a variant to fit there, and `facts` of that; None if nothing helps."""
  place, found = Place(topology, {}), dict[str, Any]()
  for _ in range(10):
    try:
      found = facts(name, place)
      if found["fits"]:
        return place, found
      changes = found["changes"]
    except ValueError:  # the batch does not divide over these devices
      changes = fit.cut_anew(changed(name, place), topology)
    if changes.items() <= place.changes.items():
      return None
    place = place._replace(changes=place.changes | changes)
  return None


def search() -> dict[str, dict[str, Place]]:
  """Name of a variant -> kind of hardware -> the least that holds it."""
  return {
    name: {kind: place for kind, topologies in KINDS.items() if (place := find(name, topologies))}
    for name in in_papers()
  }


def stored() -> dict[str, dict[str, Place]]:
  raw = json.loads(STORED.read_text(encoding="utf-8"))
  return {
    name: {kind: Place(**place) for kind, place in kinds.items()} for name, kinds in raw.items()
  }


def said(place: Place, found: dict[str, Any]) -> str:
  """`h100:8: 65 of 80 GiB a device, at least 225 s a step`, and what has to change."""
  used, whole = found["peak"] / GIB, found["memory"] / GIB
  changes = ", ".join(f"{field}={value}" for field, value in place.changes.items())
  text = f"{place.topology}: {used:.0f} of {whole:.0f} GiB a device"
  text += f", at least {found['roofline_s']:,.0f} s a step"
  return f"{text}, with {changes}" if changes else text


def header(names: Iterable[str], places: dict[str, dict[str, Place]]) -> str:
  """The line `Fits` of a config file: for each kind, the variant that needs most."""
  lines = []
  for kind in KINDS:
    own = [(places[n][kind], facts(n, places[n][kind])) for n in names if kind in places[n]]
    if own:
      lines.append(said(*max(own, key=lambda both: (both[1]["devices"], both[1]["peak"]))))
  text = "\n".join(lines) or f"nothing up to {KINDS['GPU'][-1]} and {KINDS['TPU'][-1]}: see fit.md"
  wrap = lambda line: textwrap.wrap(line, 92, break_long_words=False, break_on_hyphens=False)
  parts = [part for line in text.splitlines() for part in wrap(line)]
  return "Fits    " + "\n        ".join(parts)


def with_header(source: str, line: str) -> str:
  """The source of a config with this line `Fits` before its `Result`."""
  source = re.sub(r"^Fits .*\n(?: {8}.*\n)*", "", source, flags=re.MULTILINE)
  return re.sub(r"^Result ", f"{line}\nResult ", source, count=1, flags=re.MULTILINE)


def files(places: dict[str, dict[str, Place]]) -> Iterator[tuple[Path, str]]:
  """Each config file with a line `Fits`, and the source that it should have."""
  by_file: dict[str, list[str]] = {}
  for name in places:
    by_file.setdefault(variants()[name].stem, []).append(name)
  for stem, names in by_file.items():
    path = ROOT / "configs" / f"{stem}.py"
    yield path, with_header(path.read_text(encoding="utf-8"), header(names, places))


def page(places: dict[str, dict[str, Place]]) -> str:
  rows = ["| config | run | model | " + " | ".join(KINDS) + " |", "|---|---|---|---|---|"]
  for name, kinds in places.items():
    config = _config(name)
    cells = [said(kinds[k], facts(name, kinds[k])) if k in kinds else "nothing here" for k in KINDS]
    model = config["policy"]["path"].removeprefix("models/")
    row = [variants()[name].argument, config.get("run", "rl"), model, *cells]
    rows.append("| " + " | ".join(row) + " |")
  return "\n".join([HEAD, *rows, "", compared()])


def calculated_again() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
  """Each row of compiled.json, and the programs that are calculated for it."""
  for row in json.loads((HERE / "compiled.json").read_text(encoding="utf-8")):
    config = changed(row["config"], Place(row["topology"], row["changes"]))
    shape = fit.shape_of(config["policy"], row["model"])
    yield row, fit.calculated(config, row["topology"], shape)["programs"]


def compared() -> str:
  """Temporaries that the compiler said and that are calculated, of compiled.json."""
  lines = ["## Calculated and compiled", "", "GiB of temporaries on a device, by program.", ""]
  lines += [
    "| config | model | topology | program | compiled | calculated |",
    "|---|---|---|---|---|---|",
  ]
  for row, programs in calculated_again():
    for name, size in row["temporaries"].items():
      cells = [row["config"], row["model"], row["topology"], name, f"{size:.1f}"]
      cells.append(f"{programs[name]['temporaries'] / GIB:.1f}")
      lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def main() -> None:
  places = search()
  raw = {name: {k: p._asdict() for k, p in kinds.items()} for name, kinds in places.items()}
  STORED.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
  PAGE.write_text(page(places), encoding="utf-8")
  for path, source in files(places):
    path.write_text(source, encoding="utf-8")


if __name__ == "__main__":
  main()

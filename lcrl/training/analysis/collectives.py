"""What devices send one another, read from the text of a compiled program."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

# Bytes that a device sends, as a multiple of what goes in and of what comes out: ring algorithms.
KINDS = {
  "all-reduce": (2, 0),
  "all-gather": (0, 1),
  "reduce-scatter": (1, 0),
  "all-to-all": (1, 0),
  "collective-permute": (1, 0),
}
Instruction = tuple[str, str, str, str]
_HEADER = re.compile(r"(?:ENTRY )?%([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)")
_CALLED = re.compile(r"(?:calls|body|to_apply|\w+_computations?)=\{?(%[\w.-]+(?:, %[\w.-]+)*)")
_ARRAY = re.compile(r"\b(?:pred|[a-z]+?(\d+)\w*)\[([\d,]*)\]")


def sent_bytes(hlo: str, *, trips: Sequence[float] = ()) -> dict[str, float]:
  """Bytes that a device sends in one run of the program, by kind of collective.

  A loop's body counts as often as it runs. The text tells that of a `scan`; of other loops, as
  those over the tokens of a response, the caller states it.

  Args:
    hlo: `compiled.as_text()`.
    trips: of each loop whose count the text does not tell, in the order of the program, a loop
      before those in it; as often as it runs for one run of what is around it.
  """
  computations = dict(_computations(hlo))
  (entry,) = re.findall(r"^ENTRY %([\w.-]+)", hlo, re.MULTILINE)
  total, stated = dict.fromkeys(KINDS, 0.0), iter(trips)

  def walk(name: str, times: float) -> None:
    sizes = {}
    for result, kind, rest, own in computations[name]:
      sizes[own] = _size(result)
      base = kind.removesuffix("-start")
      if base in KINDS:
        operands = re.findall(r"%([\w.-]+)", rest.split(")")[0])
        taken = sum(sizes[operand] for operand in operands)
        carried = taken if kind == "all-gather-start" else 0  # its result holds its operand
        into, out = KINDS[base]
        total[base] += times * (into * taken + out * (sizes[own] - carried))
        continue
      inner = times
      if kind == "while":
        known = _trips(rest, computations)
        inner *= next(stated, math.nan) if known is None else known
      for names in _CALLED.findall(rest):
        for called in re.findall(r"%([\w.-]+)", names):
          walk(called, inner)

  walk(entry, 1.0)
  if math.isnan(sum(total.values())) or next(stated, None) is not None:
    raise ValueError(f"trips are of {len(trips)} loops, the program has another number of them.")
  return total


def _computations(hlo: str) -> Iterator[tuple[str, list[Instruction]]]:
  """(name, its instructions as (type of the result, kind, operands and attributes, name))."""
  name, found = "", list[Instruction]()
  for line in hlo.splitlines():
    if header := _HEADER.match(line):
      name, found = header[1], []
    elif instruction := _INSTRUCTION.match(line):
      own, result, kind, rest = instruction.groups()
      found.append((result, kind, rest, own))
    elif line.startswith("}"):
      yield name, found


def _trips(rest: str, computations) -> float | None:
  """How often a loop runs: from its annotation, or from a condition `counter < constant`."""
  if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', rest):
    return int(known[1])
  (condition,) = re.findall(r"condition=%([\w.-]+)", rest)
  lines = computations[condition]
  bounds = [rest.split(")")[0] for _, kind, rest, _ in lines if kind == "constant"]
  _, kind, test, _ = lines[-1]
  return int(bounds[0]) if kind == "compare" and "=LT" in test and len(bounds) == 1 else None


def _size(result: str) -> int:
  """Bytes of an array, or of all arrays of a tuple.

  >>> _size("(bf16[4,8]{1,0:T(8,128)(2,1)}, pred[], /*index=2*/s32[3]{0})")
  77
  """
  total = 0
  for bits, shape in _ARRAY.findall(result):
    count = 1
    for size in filter(None, shape.split(",")):
      count *= int(size)
    total += count * max(int(bits or 8) // 8, 1)
  return total

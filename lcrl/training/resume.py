"""Checks of a resumed run: which config fields may change, and that the data are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lcrl.tasks.task import Prompts

# How long a run is and how it computes. None of these changes the update of a step, up to rounding.
MEANS = {"train.steps", "train.micro_batches", "train.micro_tokens", "train.pack"}
PIECES = {"train.micro_batches", "train.micro_tokens", "train.pack"}
MEANS |= {
  "train.head_remat",
  "task.long",
  "policy.remat",
  "policy.unroll",
  "policy.attention",
  "policy.decoding",
}
SECTIONS = ("checkpoint", "eval", "eval_task", "eval_tasks", "log", "mesh", "verify")
LIMITS = ("train.max_tokens", "train.max_prompt_tokens")  # may rise
ABSENT = object()


def check_config(where: Any, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
  """Raises ValueError, with field and both values, if a field differs that must not change in the
  middle of a run. Fields in `SECTIONS` or `MEANS` may change; `LIMITS` may rise."""
  old, new = _flat(before), _flat(after)
  pairs = {name: (old.get(name, ABSENT), new.get(name, ABSENT)) for name in sorted({**old, **new})}
  may_rise = LIMITS if after.get("run") != "iterative" else ()  # these set the width of its rounds

  def allowed(name: str, a: Any, b: Any) -> bool:
    if name in PIECES and new.get("train.balance"):  # loads of experts are counted in a piece
      return False
    if name in MEANS or name.partition(".")[0] in SECTIONS:
      return True
    return name in may_rise and isinstance(a, int) and isinstance(b, int) and a <= b

  refused = {name: ab for name, ab in pairs.items() if ab[0] != ab[1] and not allowed(name, *ab)}
  if refused:
    changes = (f"{name} was {_text(a)} and is {_text(b)}" for name, (a, b) in refused.items())
    raise ValueError(
      f"{where} holds a run of another config: {', '.join(refused)} differ ({'; '.join(changes)}). "
      "Take the old values to go on with it, or another workdir to begin anew."
    )


def check_data(where: Any, before: Mapping[str, Any] | None, data: str) -> None:
  """Raises ValueError if a checkpoint says that the run learned from other data."""
  recorded = (before or {}).get("data", data)
  if recorded != data:
    raise ValueError(
      f"{where} holds a run that learned from other data: their fingerprint was {recorded} and is "
      f"{data}. Bring the old data back to go on with it (and the old train.max_prompt_tokens, "
      "where prompts are skipped), or take another workdir to begin anew."
    )


def fingerprint(rows: Sequence[Any] | Prompts, parts: Callable[[Any], Any]) -> str:
  """A hash of the number of rows and of `parts` of each row, which must be plain data.

  If rows are generated on demand, the hash covers 256 of them, evenly spread.
  """
  count = len(rows) if isinstance(rows, list | tuple) else min(len(rows), 256)
  digest = hashlib.sha256(str(len(rows)).encode())
  for i in range(count):
    digest.update(repr(parts(rows[i * len(rows) // count])).encode("utf-8", "surrogatepass"))
  return digest.hexdigest()[:16]


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> set[str]:
  """Dotted names of the fields in which two nested mappings differ."""
  old, new = _flat(a), _flat(b)
  return {n for n in old.keys() | new.keys() if old.get(n, ABSENT) != new.get(n, ABSENT)}


def _flat(x: Any, at: str = "") -> dict[str, Any]:
  """Dotted name -> value."""
  if not isinstance(x, Mapping) or not x:
    return {at: x}
  parts = [_flat(value, f"{at}.{name}" if at else str(name)) for name, value in x.items()]
  return {name: value for part in parts for name, value in part.items()}


def _text(x: Any) -> str:
  return "absent" if x is ABSENT else f"{x!r:.80}"

"""Rotary positions in config.json, and back. Reads old and new spellings."""

from __future__ import annotations

import reprlib
from typing import Any

from lcrl.policies.config import Rope
from lcrl.policies.fields import Fields

_FIELDS = {
  "factor": "factor",
  "original_max_position_embeddings": "original_length",
  "low_freq_factor": "low_freq",
  "high_freq_factor": "high_freq",
  "beta_fast": "beta_fast",
  "beta_slow": "beta_slow",
  "attention_factor": "attention_factor",
  "truncate": "truncate",
}
_KEYS = {  # what each scaling reads
  "default": (),
  "linear": ("factor",),
  "llama3": (
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
  ),
  "yarn": (
    "factor",
    "original_max_position_embeddings",
    "beta_fast",
    "beta_slow",
    "attention_factor",
    "truncate",
  ),
}
_DEFAULTS = {"beta_fast": (32.0,), "beta_slow": (1.0,)}  # the others are needed
_OUTSIDE = ("rope_theta", "original_max_position_embeddings", "partial_rotary_factor")


def read_rope(c: Fields, theta: float = 10_000.0) -> Rope:
  """What config.json says of rotary positions; `theta` where it gives none.

  Raises:
    ValueError: a parameter is missing, of the wrong kind, not supported or contradicts another.
  """
  rope = Fields(_rope_fields(c, theta), c.where)
  scaling = rope.text("rope_type")
  if scaling not in _KEYS:
    raise ValueError(f"{c.where}: rope scaling {scaling!r} is not one of {', '.join(_KEYS)}.")
  for key, value in rope.values.items():
    if key == "partial_rotary_factor" and value != 1:
      raise rope.refuse(key, "is not supported, only 1.0")
    if key not in {*_KEYS[scaling], *_OUTSIDE, "rope_type"}:
      raise ValueError(f"{c.where}: rope parameter {key}={reprlib.repr(value)} is not supported.")
  read: dict[str, Any] = {}
  for key in _KEYS[scaling]:
    if key == "original_max_position_embeddings":  # without one, the model was never stretched
      read[key] = rope.whole(key, None) or c.whole("max_position_embeddings")
    elif key == "truncate":
      read[key] = rope.flag(key, True)
    elif key == "attention_factor":
      read[key] = rope.positive(key, None)
    else:
      read[key] = rope.positive(key, *_DEFAULTS.get(key, ()))
  for less, more in (("low_freq_factor", "high_freq_factor"), ("beta_slow", "beta_fast")):
    if less in read and read[less] >= read[more]:
      raise ValueError(f"{c.where}: {less}={read[less]} is not below {more}={read[more]}.")
  if (theta := rope.positive("rope_theta")) <= 1:
    raise rope.refuse("rope_theta", "should be above 1")
  return Rope(theta, scaling, **{_FIELDS[key]: value for key, value in read.items()})


def _rope_fields(c: Fields, theta: float) -> dict[str, Any]:
  """Rope parameters from the places where they may stand, which must agree.

  As in transformers, `rope_scaling` takes the place of `rope_parameters`. A plain one of the latter
  beside it is no contradiction: it stays where people add a scaling by hand.
  """
  outside = {key: c.values[key] for key in _OUTSIDE if c.values.get(key) is not None}
  tables = {"": outside}
  for name in ("rope_scaling", "rope_parameters"):
    tables[name] = table = c.table(name)
    old = table.pop("type", None)
    if old is not None and table.setdefault("rope_type", old) != old:
      raise c.refuse(name, f"gives two types, {old!r} and {table['rope_type']!r}")
  chosen = tables["rope_scaling"] or tables["rope_parameters"]
  rope = {"rope_theta": theta, "rope_type": "default"} | outside | chosen
  for name, table in tables.items():
    for key, value in table.items():
      if rope.get(key) != value and (key, value) != ("rope_type", "default"):
        raise ValueError(
          f"{c.where}: {name or 'config'}.{key}={reprlib.repr(value)} contradicts "
          f"{key}={reprlib.repr(rope.get(key))}, given elsewhere or by default."
        )
  return rope


def write_rope(rope: Rope) -> dict[str, Any]:
  """The table `rope_parameters`.

  Raises:
    ValueError: no file has such rotary positions.
  """
  if rope.scaling not in _KEYS:
    raise ValueError(f"A folder cannot hold rope scaling {rope.scaling!r}.")
  scaling = {key: getattr(rope, _FIELDS[key]) for key in _KEYS[rope.scaling]}
  plain = {"rope_theta": rope.theta, "rope_type": rope.scaling}
  return plain | {key: value for key, value in scaling.items() if value is not None}

"""Which model teaches which rollout: the section `teachers` of a config, read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lcrl.registry import is_spec

Models = str | Sequence[Any] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Teachers:
  """The section `teachers`."""

  models: Models  # a folder of a model or a run; a list of one for each level; or a map of these
  field: str | None = None  # of the prompts' rows, whose values `models` maps


class Table(NamedTuple):
  """Every model once, and the model of each value of the field and each level of the budget."""

  models: tuple[Any, ...]
  places: tuple[str, ...]  # of each model in the config, for errors
  values: tuple[str, ...]  # of the field; () without one
  chosen: np.ndarray  # [values, levels] int32, indices into `models`

  @property
  def levels(self) -> int:
    """Levels that have models of their own; 1: all share one."""
    return int(self.chosen.shape[1])


def table_of(section: Teachers) -> Table:
  """Reads the section.

  >>> print(table_of(Teachers({"math": ["a", "b"], "code": "c"}, field="domain")).chosen)
  [[0 1]
   [2 2]]

  Raises:
    ValueError: there is no model, or a list of another length than the others, or `field` and a map
      come one without the other.
  """
  models, field = section.models, section.field
  mapped = isinstance(models, Mapping) and not is_spec(models)
  if mapped != (field is not None):
    raise ValueError(
      "teachers.field names the field of the prompts' rows whose values teachers.models maps to "
      f"models: set both, or neither, got field={field!r} and models={models!r:.80}."
    )
  branches: dict[Any, Any] = dict(models) if mapped else {None: models}  # type: ignore[arg-type]
  if not branches or any(_is_list(branch) and not branch for branch in branches.values()):
    raise ValueError(f"teachers.models must name a model, got {models!r:.80}.")
  lengths = {len(branch) for branch in branches.values() if _is_list(branch)}
  if len(lengths) > 1:
    counts = " and ".join(map(str, sorted(lengths)))
    raise ValueError(f"teachers.models has lists of {counts} models: one for each level, in all.")
  found, places = [], []
  chosen = np.zeros((len(branches), *(lengths or {1})), np.int32)
  for i, (value, branch) in enumerate(branches.items()):
    at = "teachers.models" if value is None else f"teachers.models[{value!r}]"
    for level in range(chosen.shape[1]):
      one, place = (branch[level], f"{at}[{level}]") if _is_list(branch) else (branch, at)
      if not (isinstance(one, str) or is_spec(one)):
        raise ValueError(f"{place} must be a folder or a section with a field fn, got {one!r:.80}.")
      if one not in found:
        found.append(one)
        places.append(place)
      chosen[i, level] = found.index(one)
  values = tuple(str(value) for value in branches) if mapped else ()
  return Table(tuple(found), tuple(places), values, chosen)


def count(section: Teachers | None) -> int:
  """How many models a run holds as teachers."""
  return 0 if section is None else len(table_of(section).models)


def _is_list(x: Any) -> bool:
  return isinstance(x, Sequence) and not isinstance(x, str)

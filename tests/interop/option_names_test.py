"""docs/from_trl_and_verl.md: every name of lcrl is a field of a config, with the default given."""

import dataclasses
import inspect

import pytest

from lcrl.registry import annotated, find
from lcrl.training.fields import CONTROL, Named, section
from lcrl.values import hints
from tests.helpers.option_names import assignment, rows, value

TABLES = {"TRL: GRPOConfig": "rl", "TRL: DPOConfig": "preference", "verl": "rl"}
# What a row without fn is about.
USUAL = {
  "rl": {"loss": "clipped_surrogate", "optimizer": "adamw", "advantage": "group_normalized"},
  "preference": {"loss": "dpo"},
}


def default_of(run, spans):
  """The default of the last path, ... if it has none. Raises where the config has no such field."""
  names = {tuple(path[:-1]): given for path, given in map(assignment, spans) if path[-1] == "fn"}
  for path, _ in map(assignment, spans):
    *parents, field = path
    part, module, gives = section(run, tuple(parents[:1])), None, None
    if parents == ["sampling", "control"]:
      part, parents = CONTROL, ["sampling.control"]
      names |= {("sampling.control",): names.get(("sampling", "control"))}
    if isinstance(part, type):
      assert len(path) == 2, path
      assert field in hints(part), path
      (default,) = (f.default for f in dataclasses.fields(part) if f.name == field)
      default = ... if default is dataclasses.MISSING else default
      continue
    assert isinstance(part, Named), (run, path)
    module, gives, default = part.module, part.gives, ...
    for depth in range(1, len(parents) + 1):
      name = names.get(tuple(parents[:depth])) or USUAL[run].get(parents[depth - 1])
      function = find(module, {"fn": name}, field=".".join(path), gives=gives)
      gives = annotated(function, path[depth]) if depth < len(path) - 1 else None
    if field in part.more and len(path) == 2:
      default = ...
    elif field != "fn":
      taken = inspect.signature(function).parameters
      assert field in taken, (path, name)
      default = taken[field].default
      default = ... if default is inspect.Parameter.empty else default
  return default


@pytest.mark.parametrize(("heading", "run"), TABLES.items())
def test_names_and_defaults(heading, run):
  found = rows(heading)
  assert len(found) > 20
  for row in found:
    default = default_of(run, row.ours)
    if row.our_default:
      said = ... if row.our_default == "required" else value(row.our_default)
      assert default == said, row


@pytest.mark.parametrize(
  "span", ["loss.clip_lower", 'loss.fn="clipped"', "train.batch", 'loss.kl.fn="k9"', "los.clip_low"]
)
def test_other_names_are_noticed(span):
  with pytest.raises((AssertionError, ValueError)):
    default_of("rl", (span,))

"""Whatever stands in a field of a config: it may be so, or one sentence names the field."""

import copy
import dataclasses
import inspect
import math

import pytest

from experiments.configs import variants
from lcrl import values
from lcrl.registry import find, is_spec
from lcrl.training import fields, kinds
from lcrl.training.fields import Named

VALUES = (None, -1, 0, 1.5, 10**18, math.nan, math.inf, "x", [], {}, True)
CONFIGS = {
  "rl": "laser_d",
  "preference": "dpo_lora",
  "sft": "sft",
  "iterative": "sppo_iterative",
  "reward_model": "reward_model",
}


def places(config, kind):
  """The dotted names of all fields, those that the config does not write down among them."""
  yield from ((name,) for name in ("run", "seed", *fields.SECTIONS[kind]))
  for name, section in fields.SECTIONS[kind].items():
    if isinstance(section, type):
      yield from ((name, field.name) for field in dataclasses.fields(section))
    elif name in config:
      yield from arguments(section, config[name], (name,))


def arguments(section, spec, at):
  function = find(section.module, spec, field=at[0])
  for name in {"fn": 0} | dict(inspect.signature(function).parameters) | spec:
    yield (*at, name)
    if is_spec(spec.get(name)):
      yield from arguments(Named(section.module), spec[name], (*at, name))


def changed(config, path, value):
  config = place = copy.deepcopy(config)
  for key in path[:-1]:
    place = place.setdefault(key, {})
  place[path[-1]] = value
  return config


def refusal(config):
  """Why a config is none; other errors than ValueError come through."""
  try:
    kinds.kind(config).settings(config)
  except ValueError as why:
    return str(why)
  return None


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_field_takes_or_refuses_by_name(kind):
  config = variants()[CONFIGS[kind]].config("smoke")
  paths = [*places(config, kind)]
  assert len(paths) > 50
  refused = 0
  for path in paths:
    for value in VALUES:
      why = refusal(changed(config, path, value))
      assert why is None or path[-1] in why or path[0] in why, (path, value, why)
      refused += why is not None
  assert refused > len(paths) * len(VALUES) / 2


@pytest.mark.parametrize(
  "path, value",
  [
    ("train.steps", 1e9),
    ("train.steps", 10**9),
    ("train.group_size", True),
    ("train.window", 10**9),
    ("train.pack", 0),
    ("sampling.temperature", math.nan),
    ("sampling.temperature", 10**400),
    ("optimizer.b1", -(10**400)),
    ("sampling.dtype", "float"),
    ("sampling.control", "top_p"),
    ("verify.memory", -1),
    ("verify.workers", 10**6),
    ("verify.deadline", math.inf),
    ("optimizer.learning_rate", math.nan),
    ("policy.layers", -1),
    ("policy.vocab_size", 0),
    ("reward.lower", 1.5),
    ("learned", 3),
    ("learned", {"x": 3}),
    ("then", 3),
    ("then", [3]),
    ("eval.every", -1),
  ],
)
def test_some_values_that_once_ended_in_other_errors(path, value):
  given = changed(variants()["laser_d"].config("smoke"), path.split("."), value)
  with pytest.raises(ValueError, match=path.replace(".", r"\.")):
    kinds.kind(given).settings(given)


@pytest.mark.parametrize("text", ["{[]: 1}", "{{}}", "-" * 10**5 + "1", "9" * 400, "9" * 5000])
@pytest.mark.parametrize("hint", [int, float | None, bool, tuple[float, ...]])
def test_text_that_is_no_value_is_refused_by_name(text, hint):
  with pytest.raises(ValueError, match=r"^train\.steps must be "):
    values.check(values.parse(text, hint), hint, "train.steps")

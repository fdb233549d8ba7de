"""The kinds of run that `run` of a config can name. A new kind is a row of `RUNS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

from lcrl.training.distill.settings import read as read_distill
from lcrl.training.fields import check_functions
from lcrl.training.iterative import run as iterative
from lcrl.training.iterative.settings import read as read_iterative
from lcrl.training.pairs import run as on_pairs
from lcrl.training.pairs.settings import read as read_on_pairs
from lcrl.training.reward_model import run as reward_model
from lcrl.training.reward_model.settings import read as read_reward_model
from lcrl.training.rl import run as rl
from lcrl.training.rl import settings
from lcrl.training.run import Run
from lcrl.training.workdir import Workdir
from lcrl.values import nearest_first

Begin = Callable[[Workdir], AbstractContextManager[Run]]


class Kind(NamedTuple):
  settings: Callable[[Mapping[str, Any]], Any]  # reads a config; ValueError if it is invalid
  begin: Callable[[Any, Workdir], AbstractContextManager[Run]]
  model: Callable[..., Any]  # of settings; it has policy, mesh, abstract and policy_params
  acts: bool = True  # False if it trains no policy that answers

  @classmethod
  def of(cls, settings: Callable[[Mapping[str, Any]], Any], *rest: Any, **options: Any) -> Kind:
    """A kind that also checks the functions that a config names, before anything is built."""

    def read(config: Mapping[str, Any]) -> Any:
      parsed = settings(config)
      check_functions(config)
      return parsed

    return cls(read, *rest, **options)

  def read(self, config: Mapping[str, Any]) -> Begin:
    return partial(self.begin, self.settings(config))


ON_PAIRS = Kind.of(read_on_pairs, on_pairs.begin, on_pairs.build_learner)
ITERATIVE = Kind.of(read_iterative, iterative.begin, iterative.build_learner)
REWARD_MODEL = Kind.of(
  read_reward_model, reward_model.begin, reward_model.build_learner, acts=False
)
RUNS = {
  "rl": Kind.of(settings.read, rl.begin, rl.build_learner),
  "distill": Kind.of(read_distill, rl.begin, rl.build_learner),
  "preference": ON_PAIRS,
  "sft": ON_PAIRS,
  "iterative": ITERATIVE,
  "reward_model": REWARD_MODEL,
}


def acting(config: Mapping[str, Any]) -> Kind:
  """As `kind`; raises ValueError for a kind whose model answers nothing."""
  row = kind(config)
  if not row.acts:
    raise ValueError(f"a run of {config['run']!r} has no policy that answers.")
  return row


def kind(config: Mapping[str, Any]) -> Kind:
  """The kind of run that `config` names; "rl" by default."""
  name = config.get("run", "rl")
  if name not in [*RUNS]:
    raise ValueError(f"run={name!r} is not one of {', '.join(nearest_first(name, [*RUNS]))}.")
  return RUNS[name]

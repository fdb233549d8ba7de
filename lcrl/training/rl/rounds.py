"""A round of rollouts with everything that the recipe needs: sampled, verified, revised, read.

What a stage `needs` comes from one of three places, and a run whose stages need more than these
supply does not start: the task's signals (text), the revision (text and further sampling), and
providers, which see the policy's parameters and the final rows: the scorer's entropy, or a reward
model with parameters of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lcrl import recipes
from lcrl.data.lengths import rows
from lcrl.mesh import to_global, to_local
from lcrl.rollouts.worker import Player, Playing, Referee, Share
from lcrl.tasks.task import Prompt
from lcrl.training.rl.learner import REF, Model
from lcrl.training.rl.revise import Revision
from lcrl.types import Budget, Recipe, Rollouts, Stage

PyTree = Any
OTHER_NEEDS = {"group", "ref"}  # no signals


class Provider(NamedTuple):
  """Signals that a model gives. `read(params of the policy, rollouts) -> name -> [B, G] or
  [B, G, T]`, on global arrays; a reward model ignores the parameters and closes over its own."""

  names: tuple[str, ...]
  read: Callable[[PyTree, Rollouts], dict[str, jax.Array]]


Reference = Callable[[Rollouts], jax.Array]


def reference_scores(model: Model) -> Reference:
  """rollouts -> log-probs [B, G, T] under the policy that the run started from."""
  params = model.initial().params
  return lambda rollouts: model.measure(params, rollouts).log_probs


def scorer_signals(model: Model, reference: Reference | None) -> list[Provider]:
  """What stages before the loss need of the scorer: entropy and its like, under the old policy, and
  "ref_log_probs".

  With several updates a step the pass for the former gives the old log-probs, too, as
  "old_log_probs".
  """

  def read(params: PyTree, rollouts: Rollouts) -> dict[str, jax.Array]:
    scores = model.measure(params, rollouts)
    found = {name: getattr(scores, name) for name in model.measured}
    if model.settings.train.updates > 1:
      found["old_log_probs"] = scores.log_probs
    return found

  providers = [Provider(model.measured, read)] if model.measured else []
  if reference is not None and REF in recipes.signals(model.recipe):
    providers.append(Provider((REF,), lambda _, rollouts: {REF: reference(rollouts)}))
  return providers


@dataclasses.dataclass(frozen=True)
class Rounds:
  """Plays rounds. The fields are alike on every process."""

  player: Player
  revision: Revision | None = None
  providers: Sequence[Provider] = ()
  reference: Reference | None = None

  @property
  def mesh(self) -> Mesh:
    return self.player.mesh

  def check(self, recipe: Recipe[Stage]) -> None:
    """Raises ValueError, by name, for a signal that a stage needs and nothing here supplies, and
    for a state with fewer rows than the data set."""
    task = self.player.task
    supplied = {name for provider in self.providers for name in provider.names}
    supplied |= set(task.signals.dtypes) if task.signals else set()
    supplied |= set(self.revision.supplies) if self.revision else set()
    for slot, stage in recipe._asdict().items():
      if slot != "loss" and (missing := set(stage.needs) - supplied - OTHER_NEEDS):
        raise ValueError(
          f"{slot} needs {sorted(missing)}, which nothing here supplies: task.signals, revise and "
          f"the scorer give {sorted(supplied)}."
        )
      if 0 < stage.rows < rows(task.prompts):
        raise ValueError(
          f"{slot}.rows is {stage.rows}, but the data set has {rows(task.prompts)} rows."
        )

  def play(
    self,
    params: PyTree,
    prompts: Sequence[Prompt],
    index: np.ndarray,
    budget: Budget,
    key: jax.Array,
  ) -> Rollouts:
    """`Player.play`, then revision, signals and providers."""
    rollouts, _ = self.launch(params, prompts, index, budget, key).finish()
    return self.read(params, rollouts)

  def launch(
    self,
    params: PyTree,
    prompts: Sequence[Prompt],
    index: np.ndarray,
    budget: Budget,
    key: jax.Array,
  ) -> Round:
    """A round begun, without waiting; the parameters may be the sampler's copy of them."""
    return Round(self, self.player.launch(params, prompts, index, budget, key))

  def read(self, params: PyTree, rollouts: Rollouts) -> Rollouts:
    """The same with what providers say of it under `params`, if they have not said it yet."""
    found: dict[str, jax.Array] = {}
    for provider in self.providers:
      if not rollouts.signals.keys() >= {*provider.names}:
        found |= provider.read(params, rollouts)
    return dataclasses.replace(rollouts, signals=rollouts.signals | found)

  def read_of(self, stages: Iterable[Stage]) -> set[str]:
    """The signals that these stages need of providers."""
    provided = {name for provider in self.providers for name in provider.names}
    return provided & {name for stage in stages for name in stage.needs}


@dataclasses.dataclass(frozen=True)
class Round:
  """A round that is being sampled."""

  rounds: Rounds
  playing: Playing

  def finish(self) -> tuple[Rollouts, tuple[float, float]]:
    """Its rollouts with all but what providers say, and from when until when they were sampled."""
    rollouts, referee = self.playing.finish()
    revision, player = self.rounds.revision, self.rounds.player
    if revision is not None:
      mine = revision.apply(jax.tree.map(to_local, rollouts), referee)
      rollouts = to_global(player.mesh, _with_signals(mine, referee))
    elif player.task.signals is not None:
      mine = _with_signals(jax.tree.map(to_local, rollouts), referee)
      rollouts = dataclasses.replace(rollouts, signals=to_global(player.mesh, mine.signals))
    return rollouts, referee.sampled


def _with_signals(r: Share, referee: Referee) -> Share:
  """The task's signals beside those of the revision, which stand first."""
  return dataclasses.replace(r, signals=referee.signals(r) | r.signals)

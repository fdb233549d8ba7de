"""From a round's prompts to rollouts with everything that the recipe needs.

Three sources supply the signals in `needs` of a stage: the task (from text), the revision (from
text and further sampling), and providers, which read the policy's parameters and the final rows,
such as the scorer's entropy or a trained reward model. A run does not start if a signal has no
source.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from lcrl import recipes
from lcrl.data.choosing import rows
from lcrl.mesh import to_global, to_local
from lcrl.policies.experts import CHOSEN
from lcrl.rollouts.grader import LocalRollouts, RolloutGrader
from lcrl.rollouts.worker import Interval, PendingRollouts, RolloutWorker
from lcrl.training.rl.learner import REF, Learner
from lcrl.training.rl.revise import Revision
from lcrl.types import Recipe, Rollouts, Stage

PyTree = Any


class Provider(NamedTuple):
  """Signals of a model. `read(params of the policy, rollouts) -> name -> [B, G] or [B, G, T]`, on
  global arrays; a reward model ignores the parameters and closes over its own."""

  names: tuple[str, ...]
  read: Callable[[PyTree, Rollouts], dict[str, jax.Array]]


Reference = Callable[[Rollouts], jax.Array]


def reference_log_probs(learner: Learner) -> Reference:
  """rollouts -> log-probs [B, G, T] under the policy that the run started from. With adapters that
  is their base, which lies there anyway."""
  params = learner.initial().params if learner.settings.lora is None else learner.base()

  def read(rollouts: Rollouts) -> jax.Array:
    own = {name: x for name, x in rollouts.signals.items() if name != CHOSEN}  # its own experts
    return learner.measure(params, dataclasses.replace(rollouts, signals=own)).log_probs

  return read


def scorer_signals(learner: Learner, reference: Reference | None) -> list[Provider]:
  """Signals that the scorer gives to stages before the loss: entropy and its like under the policy
  before the update, and "ref_log_probs".

  With several updates a step, the pass for the former also gives "old_log_probs".
  """

  def read(params: PyTree, rollouts: Rollouts) -> dict[str, jax.Array]:
    scores = learner.measure(params, rollouts)
    signals = {name: getattr(scores, name) for name in learner.measured}
    if learner.settings.train.updates > 1:
      signals["old_log_probs"] = scores.log_probs
    return signals

  providers = [Provider(learner.measured, read)] if learner.measured else []
  if reference is not None and REF in recipes.signals(learner.recipe):
    providers.append(Provider((REF,), lambda _, rollouts: {REF: reference(rollouts)}))
  return providers


@dataclasses.dataclass(frozen=True)
class RolloutPipeline:
  """The worker, and what is done to its rollouts. The fields are alike on every process."""

  worker: RolloutWorker
  revision: Revision | None = None
  providers: Sequence[Provider] = ()
  reference: Reference | None = None

  @property
  def mesh(self) -> Mesh:
    return self.worker.mesh

  def check(self, recipe: Recipe[Stage]) -> None:
    """Raises ValueError, by name, for a signal that a stage needs and nothing here supplies, for
    truncation that the sampler does not tell, and for a state with fewer rows than the data set."""
    task = self.worker.task
    supplied = {name for provider in self.providers for name in provider.names}
    supplied |= set(task.signals.dtypes) if task.signals else set()
    supplied |= set(self.revision.supplies) if self.revision else set()
    for slot, stage in recipe._asdict().items():
      if slot != "loss" and (missing := set(stage.needs) - supplied - recipes.NOT_SIGNALS):
        raise ValueError(
          f"{slot} needs {sorted(missing)}, which nothing here supplies: task.signals, revise and "
          f"the scorer give {sorted(supplied)}."
        )
      if "truncated" in stage.needs and not getattr(self.worker.engine, "tells_ends", False):
        raise ValueError(
          f"{slot} reads which responses were truncated, and the sampler does not tell why they "
          "end (tells_ends of lcrl.protocols.Sampler): all might count as finished."
        )
      if 0 < stage.rows < rows(task.prompts):
        raise ValueError(
          f"{slot}.rows is {stage.rows}, but the data set has {rows(task.prompts)} rows."
        )

  def result(self, pending: PendingRollouts) -> tuple[Rollouts, Interval]:
    """Waits for rollouts, revises them and reads the task's signals; and when they were sampled."""
    rollouts, grader, sampled = pending.timed_result()
    if self.revision is not None:
      local = self.revision.apply(jax.tree.map(to_local, rollouts), grader)
      rollouts = to_global(self.mesh, _with_signals(local, grader))
    elif self.worker.task.signals is not None:
      bare = dataclasses.replace(rollouts, signals={})
      read = to_global(self.mesh, _with_signals(jax.tree.map(to_local, bare), grader).signals)
      rollouts = dataclasses.replace(rollouts, signals=rollouts.signals | read)
    return rollouts, sampled

  def add_signals(self, params: PyTree, rollouts: Rollouts) -> Rollouts:
    """Rollouts with the signals of providers under `params`, where they do not have them yet."""
    signals: dict[str, jax.Array] = {}
    for provider in self.providers:
      if not rollouts.signals.keys() >= {*provider.names}:
        signals |= provider.read(params, rollouts)
    return dataclasses.replace(rollouts, signals=rollouts.signals | signals)

  def provided_to(self, stages: Iterable[Stage]) -> set[str]:
    """The signals that these stages need from providers."""
    provided = {name for provider in self.providers for name in provider.names}
    return provided & {name for stage in stages for name in stage.needs}


def _with_signals(r: LocalRollouts, grader: RolloutGrader) -> LocalRollouts:
  """The task's signals; those of the revision, which has already supplied them, take precedence."""
  return dataclasses.replace(r, signals=grader.signals(r) | r.signals)

"""What a run trains: all parameters of the policy, or adapters beside its frozen ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax

from lcrl.policies import lora
from lcrl.policies.hf import Source
from lcrl.training.piece_scorer import PieceScorer
from lcrl.training.sections import Lora
from lcrl.types import TrainState

PyTree = Any


class Trainable(NamedTuple):
  """The parameters that are trained, and how they join `base`: the frozen ones, () if there are
  none."""

  init: Callable[[jax.Array], PyTree]
  axes: PyTree
  merge: Callable[[PyTree, PyTree], PyTree]  # base, trained -> params of the policy, a copy
  with_adapters: Callable[[PyTree, PyTree], PyTree]  # base, trained -> the same without a copy


def trainable(source: Source, adapters: Lora | None, hooks: Any = lora) -> Trainable:
  """What the section lora says: adapters, or without it all parameters.

  Args:
    source: the model.
    adapters: the section.
    hooks: has `adapters`, `merge` and `with_adapters` like those of `lcrl.policies.lora`.
  """
  if adapters is None:
    itself = lambda base, trained: trained
    return Trainable(source.init, source.policy.axes, itself, itself)
  init, axes = hooks.adapters(source.policy, rank=adapters.rank, targets=adapters.targets)
  merge, with_adapters = (
    partial(f, alpha=adapters.alpha) for f in (hooks.merge, hooks.with_adapters)
  )
  return Trainable(init, axes, merge, with_adapters)


def learn(part: Trainable, score, step, base: PyTree, state: TrainState, batch: Any, **sizes):
  """Runs `step` on the trained parameters, scored together with their base."""
  if not jax.tree.leaves(base):
    return step(state, batch, score=score, **sizes)
  join = partial(part.with_adapters, base)
  if isinstance(score, PieceScorer):
    return step(state, batch, score=score.on(join), **sizes)
  from_trained = lambda trained, rows, **sizes: score(join(trained), rows, **sizes)
  return step(state, batch, score=from_trained, **sizes)


class OnBase:
  """A jitted program with `base` as its first argument."""

  def __init__(self, run: Any, base: Callable[[], PyTree], abstract: PyTree):
    self._run, self._base, self._abstract = run, base, abstract

  def __call__(self, *args: Any, **options: Any) -> Any:
    return self._run(self._base(), *args, **options)

  def lower(self, *args: Any, **options: Any) -> Any:
    """Lowers the program for abstract arrays."""
    return self._run.lower(self._abstract, *args, **options)

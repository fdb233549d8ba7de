"""run="reward_model": a run on pairs, or on scored answers, that trains a body with its head."""

from __future__ import annotations

from functools import partial
from typing import Any

from lcrl.training.pairs import learner, run
from lcrl.training.reward_model import head, metrics
from lcrl.training.reward_model.evaluate import make_evaluator, summarise
from lcrl.training.reward_model.settings import form_of


def hooks(form: head.Embedding | None) -> learner.ModelHooks:
  """The functions of a model with this head."""
  return learner.ModelHooks(
    source=partial(head.with_head, form=form),
    adapters=partial(head.adapters, form=form),
    merge=head.merge,
    with_adapters=head.with_adapters,
    make_scorer=partial(head.make_scorer, form=form),
    update_measure=metrics.update_measure,
    pair_metrics=metrics.pair_metrics,
  )


def build_learner(settings: Any, *, devices=None) -> learner.PairLearner:
  """`pairs.build_learner` of a body with a head.

  Raises:
    ValueError: the config cuts rows, whose last states the head would not find.
  """
  if settings.mesh.sequence != 1:
    raise ValueError(f"mesh.sequence must be 1 for a reward model, got {settings.mesh.sequence}.")
  return learner.build_learner(settings, devices=devices, hooks=hooks(form_of(settings)))


begin = partial(run.begin, hooks=run.RunHooks(build_learner, make_evaluator, summarise))

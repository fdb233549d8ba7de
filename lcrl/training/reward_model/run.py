"""run="reward_model": a run on pairs, or on scored answers, that trains a body with its head."""

from __future__ import annotations

from functools import partial

from lcrl.training.pairs import learner, run
from lcrl.training.reward_model import head, metrics
from lcrl.training.reward_model.evaluate import make_evaluator, summarise

HOOKS = learner.ModelHooks(
  source=head.with_head,
  adapters=head.adapters,
  merge=head.merge,
  with_adapters=head.with_adapters,
  make_scorer=head.make_scorer,
  update_measure=metrics.update_measure,
  pair_metrics=metrics.pair_metrics,
)
build_learner = partial(learner.build_learner, hooks=HOOKS)
begin = partial(run.begin, hooks=run.RunHooks(build_learner, make_evaluator, summarise))

"""run="reward_model": a run on pairs, or on scored answers, that trains a body with its head."""

from __future__ import annotations

from functools import partial

from lcrl.training.pairs import learner, run
from lcrl.training.reward_model import head, metrics
from lcrl.training.reward_model.evaluate import judging, summarise

FORM = learner.Form(
  source=head.with_head,
  adapters=head.adapters,
  merge=head.merge,
  with_adapters=head.with_adapters,
  make_scorer=head.make_scorer,
  update_measure=metrics.update_measure,
  say=metrics.say,
)
build_model = partial(learner.build_model, form=FORM)
begin = partial(run.begin, parts=run.Parts(build_model, judging, summarise))

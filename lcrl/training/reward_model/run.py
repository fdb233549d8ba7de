"""run="reward_model": a run on pairs, or on scored answers, that trains a body with its head."""

from __future__ import annotations

from functools import partial

from lcrl.training.pairs import model, run
from lcrl.training.reward_model import head, measures
from lcrl.training.reward_model.judge import judging, summarise

FORM = model.Form(
  source=head.with_head,
  adapters=head.adapters,
  merge=head.merge,
  beside=head.beside,
  make_scorer=head.make_scorer,
  update_measure=measures.update_measure,
  say=measures.say,
)
build_model = partial(model.build_model, form=FORM)
begin = partial(run.begin, parts=run.Parts(build_model, judging, summarise))

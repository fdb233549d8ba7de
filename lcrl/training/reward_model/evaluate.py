"""Evaluation of a reward model on held-out answers, its summary and its report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from lcrl.data.sources import Encoded
from lcrl.evaluation import setup
from lcrl.training.evaluator import Evaluator
from lcrl.training.pairs.evaluate import data_section, make_pair_scorer, point, setup_of, table
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.pairs.references import Reference
from lcrl.training.reward_model import metrics
from lcrl.training.reward_model.settings import Settings
from lcrl.training.run import Evaluation
from lcrl.training.summary import ends, summary_of
from lcrl.training.workdir import Workdir
from lcrl.types import PyTree

ACCURACY = "held-out answers in the right order: chosen above rejected, or as their scores are"
TOKENS = "tokens of the held-out answers that it prefers"


@contextlib.contextmanager
def make_evaluator(
  model: PairLearner,
  base: PyTree,
  reference: Reference,
  tokenizer: Any,
  held_out: Sequence[Encoded],
  stream: Any,
  *,
  train: Sequence[Encoded],
  say: Callable[[str], None],
) -> Iterator[Evaluator]:
  """The evaluator of the trained params. `stream` holds the answers `held_out` once an epoch."""
  del tokenizer  # a reward model samples nothing
  made_on = setup_of(model.settings, held_out, train)
  setup.tell(made_on, say)
  score_answers = make_pair_scorer(model, reference, held_out, stream)

  def evaluate(trained: PyTree) -> Evaluation:
    answers = score_answers(model.merge(base, trained))
    record: dict[str, Any] = point("accuracy", metrics.accuracy(answers))
    record |= point("tokens", metrics.preferred_length(answers)) | {"by_difficulty": {}}
    numbers = metrics.numbers(answers)
    plain = {f"eval/{name}": record[name] for name in ("accuracy", "tokens")}
    plain |= {f"eval/pairs/{name}": x for name, x in numbers.items() if x is not None}
    return Evaluation(record | {"pairs": numbers}, plain, line(record, numbers))

  yield Evaluator(made_on, evaluate)


def line(record: dict[str, Any], numbers: dict[str, Any]) -> str:
  bias = numbers["reward_length_correlation"]
  text = "no correlation" if bias is None else f"correlation {bias:+.2f}"
  return f"accuracy {record['accuracy']:.1%}; rewards have {text} with length"


def summarise(
  out: Workdir, s: Settings, data: dict[str, Any], made_on: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes summary.json and report.md from the files of the folder."""
  start, final = (record and record["pairs"] for record in ends(out))
  summary = summary_of(
    out, reward=s.built["loss"]["fn"], seed=s.seed, steps=s.train.steps, setup=made_on
  )
  summary |= {"accuracy_of": ACCURACY, "tokens_of": TOKENS, "data": data}
  summary["pairs"] = {"start": start, "final": final}
  sections = [
    f"Accuracy stands for: {ACCURACY}. Tokens: {TOKENS}.",
    "## Rewards and length",
    table(start, final),
    "## Data",
    data_section(data),
  ]
  out.report(summary, title=f"{s.run} with {summary['method']}", sections=sections)
  return summary

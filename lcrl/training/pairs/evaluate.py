"""Evaluation of runs on pairs: on held-out pairs, on sampled answers, and on a task if any."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from lcrl.data.batches import per_epoch
from lcrl.data.sources import Encoded
from lcrl.evaluation import plots, setup
from lcrl.evaluation.intervals import Estimate, accuracy_estimate, mean_estimate
from lcrl.training import build, evaluator
from lcrl.training.evaluator import Evaluator
from lcrl.training.pairs import metrics
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.pairs.references import Reference
from lcrl.training.pairs.sampled import make_sampler
from lcrl.training.pairs.settings import Settings
from lcrl.training.run import Evaluation
from lcrl.training.summary import ends, summary_of
from lcrl.training.workdir import Workdir

PyTree = Any
ACCURACY = {  # the meaning of "accuracy" in summary.json
  "task": "right answers to the task",
  "preference": "held-out pairs whose chosen side has the higher implicit reward",
  "sft": "geometric mean probability of the tokens of held-out answers",
}


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
  """The evaluator of the trained params. `stream` holds the pairs `held_out` once an epoch."""
  s = model.settings
  made_on = setup_of(s, held_out, train)
  score_pairs = make_pair_scorer(model, reference, held_out, stream)
  sample = make_sampler(model, tokenizer, held_out)
  with contextlib.ExitStack() as stack:
    on_task = None
    if (spec := s.built.get("task")) is not None:
      _, worker = stack.enter_context(build.rollout_worker(model, tokenizer, spec, "task"))
      training = setup.of_tokens([pair.prompt for pair in train], tokenizer)
      on_task = evaluator.make_evaluator(model, tokenizer, worker, say=say, training=training)
      made_on = on_task.setup
    else:
      setup.tell(made_on, say)

    def evaluate(trained: PyTree) -> Evaluation:
      params = model.merge(base, trained)
      sides, answers = score_pairs(params), sample(params)
      lengths = mean_estimate(answers.lengths)
      sampled = point("tokens", lengths) | {"truncated": float(answers.truncated.mean())}
      record = on_task(params) if on_task else point("accuracy", accuracy(s, sides)) | sampled
      record = {"by_difficulty": {}} | record
      record |= {"pairs": metrics.numbers(sides), "sampled": sampled}
      record["by_length"] = metrics.by_length(sides)
      texts = [{"prompt": p, "response": r} for p, r in answers.texts]
      return Evaluation(record, plain(record), line(record), texts)

    yield Evaluator(made_on, evaluate)


def setup_of(s: Any, held_out: Sequence[Encoded], train: Sequence[Encoded]) -> dict[str, Any]:
  """The setup of an evaluation on held-out answers (`lcrl.evaluation.setup`)."""
  evaluated, trained = (
    [tuple(pair.prompt.tolist()) for pair in part] for part in (held_out, train)
  )
  description = {
    "data": dict(s.built["data"]),
    "model": setup.model_of(s.built["policy"]),
    "prompts": len(held_out),
    **setup.compared(evaluated, trained, of=len(trained)),
  }
  if hasattr(s, "sampling"):  # the model also samples answers
    description |= {"samples": s.eval.samples, "max_tokens": s.train.max_tokens}
    description["temperature"] = build.eval_temperature(s)
  return description


def make_pair_scorer(
  model: PairLearner, reference: Reference, held_out: Sequence[Encoded], stream: Any
) -> Callable[[PyTree], dict[str, np.ndarray]]:
  """params -> `model.pair_metrics` of all pairs of `held_out`."""
  count = per_epoch(len(held_out), model.settings.built["batches"]["size"])

  def score_pairs(params: PyTree) -> dict[str, np.ndarray]:
    parts = []
    for i in range(count):
      pairs = stream[i]
      placed = model.place(pairs)
      batch = model.derive(placed, reference(pairs, placed), 0)
      parts.append(model.pair_metrics(model.score(params, placed), batch))
    return jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *parts)

  return score_pairs


def accuracy(s: Settings, seen: dict[str, np.ndarray]) -> Estimate:
  """The accuracy of a run without a task: see `ACCURACY`."""
  if s.run == "sft":
    shares = np.exp(-seen["nll"][:, 0])
  else:
    shares = (1 + np.sign(seen["rewards"][:, 0] - seen["rewards"][:, 1])) / 2
  return accuracy_estimate(shares[:, None], seen["valid"][:, None])


def point(name: str, estimate: Estimate) -> dict[str, Any]:
  finite = lambda x: float(x) if math.isfinite(x) else None
  return {name: estimate.value, f"{name}_ci": [finite(estimate.low), finite(estimate.high)]}


def plain(record: dict[str, Any]) -> dict[str, float]:
  """The numbers for metrics.jsonl."""
  numbers = evaluator.plain_numbers(record)
  numbers |= {f"eval/sampled/{name}": record["sampled"][name] for name in ("tokens", "truncated")}
  numbers |= {f"eval/pairs/{name}": x for name, x in record["pairs"].items() if x is not None}
  return numbers


def line(record: dict[str, Any]) -> str:
  nll = record["pairs"]["nll"]
  nll = math.nan if nll is None else nll  # None where the rewards overflow
  return (
    f"accuracy {record['accuracy']:.1%}, nll {nll:.3f}, "
    f"own answers {record['sampled']['tokens']:.1f} tokens"
  )


def summarise(
  out: Workdir, s: Settings, data: dict[str, Any], made_on: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes summary.json and report.md from the files of the folder."""
  both = start, final = ends(out)
  summary = summary_of(
    out, reward=s.built["loss"]["fn"], seed=s.seed, steps=s.train.steps, setup=made_on
  )
  summary["accuracy_of"] = ACCURACY["task" if "task" in s.built else s.run]
  for name in ("pairs", "sampled"):
    summary[name] = {"start": start and start[name], "final": final and final[name]}
  for when, row in summary["pairs"].items():  # summaries keep the old name of nll
    summary["pairs"][when] = row and row | {"surprise": row["nll"]}
  rewards = {name: x["by_length"] for name, x in zip(("before", "after"), both, strict=True) if x}
  plots.reward_by_length(out.path / "reward_by_length.png", rewards)
  sections = [
    f"Accuracy stands for: {summary['accuracy_of']}.",
    "## Pairs and length",
    table(*(row and row["pairs"] | sampled_rows(row["sampled"]) for row in both)),
    "![reward against length, before and after](reward_by_length.png)",
    "## Data",
    data_section(data),
  ]
  out.report(summary | {"data": data}, title=f"{s.run} with {summary['method']}", sections=sections)
  return summary | {"data": data}


def sampled_rows(sampled: dict[str, Any]) -> dict[str, Any]:
  """The numbers of sampled answers, under their names in the table."""
  return {f"sampled {name}": sampled[name] for name in ("tokens", "truncated")}


def data_section(data: dict[str, Any]) -> str:
  """A sentence with the counts of rows and the share of padding."""
  counts = (f"{name.replace('_', ' ')} {n}" for name, n in data.items() if name != "padding")
  return (
    ", ".join(counts)
    + f"; {data['padding']:.1%} of the positions that the model reads are padding."
  )


def table(start: dict[str, Any] | None, final: dict[str, Any] | None) -> str:
  """Numbers before and after training as a Markdown table; None: not evaluated."""
  cell = lambda row, name: "-" if row is None or row[name] is None else f"{row[name]:.4g}"
  body = [
    f"| {name.replace('_', ' ')} | {cell(start, name)} | {cell(final, name)} |"
    for name in (final or start or {})
  ]
  return "\n".join(["| | before | after |", "|---|---:|---:|", *body])

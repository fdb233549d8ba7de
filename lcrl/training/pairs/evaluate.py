"""Evaluation of runs on pairs: held-out pairs, the policy's own answers, and a task if there is."""

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
from lcrl.training import build
from lcrl.training.build import Evaluator
from lcrl.training.pairs import metrics
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.pairs.references import Reference
from lcrl.training.pairs.sampled import make_sampler
from lcrl.training.pairs.settings import Settings
from lcrl.training.run import Evaluation
from lcrl.training.summary import ends, summary_of
from lcrl.training.workdir import Workdir

PyTree = Any
ACCURACY = {  # what summary.json calls accuracy
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
  """What judges the params that train. `stream` holds the pairs `held_out` once an epoch."""
  s = model.settings
  made_on = setup_of(s, held_out, train)
  look = make_pair_scorer(model, reference, held_out, stream)
  sample = make_sampler(model, tokenizer, held_out)
  with contextlib.ExitStack() as stack:
    on_task = None
    if (spec := s.built.get("task")) is not None:
      task, worker = stack.enter_context(build.rollout_worker(model, tokenizer, spec, "task"))
      learned = setup.of_tokens([one.prompt for one in train], tokenizer)
      on_task = stack.enter_context(
        build.make_evaluator(model, tokenizer, task, worker, say=say, training=learned)
      )
      made_on = on_task.setup
    else:
      setup.tell(made_on, say)

    def evaluate(trained: PyTree) -> Evaluation:
      params = model.merge(base, trained)
      seen, answers = look(params), sample(params)
      lengths = mean_estimate(answers.lengths)
      sampled = point("tokens", lengths) | {"truncated": float(answers.truncated.mean())}
      found = on_task(params) if on_task else point("accuracy", accuracy(s, seen)) | sampled
      found = {"by_difficulty": {}} | found
      found |= {"pairs": metrics.numbers(seen), "sampled": sampled}
      found["by_length"] = metrics.by_length(seen)
      texts = [{"prompt": p, "response": r} for p, r in answers.texts]
      return Evaluation(found, plain(found), line(found), texts)

    yield Evaluator(made_on, evaluate)


def setup_of(s: Any, held_out: Sequence[Encoded], train: Sequence[Encoded]) -> dict[str, Any]:
  """The setup of an evaluation on held-out answers (`lcrl.evaluation.setup`)."""
  judged, learned = ([tuple(one.prompt.tolist()) for one in part] for part in (held_out, train))
  found = {
    "data": dict(s.built["data"]),
    "model": setup.model_of(s.built["policy"]),
    "prompts": len(held_out),
    **setup.compared(judged, learned, of=len(learned)),
  }
  if hasattr(s, "sampling"):  # it writes answers, too
    found |= {"samples": s.eval.samples, "max_tokens": s.train.max_tokens}
    found["temperature"] = build.eval_temperature(s)
  return found


def make_pair_scorer(
  model: PairLearner, reference: Reference, held_out: Sequence[Encoded], stream: Any
) -> Callable[[PyTree], dict[str, np.ndarray]]:
  """params -> what `model.say` says of all pairs of `held_out`."""
  count = per_epoch(len(held_out), model.settings.built["batches"]["size"])

  def look(params: PyTree) -> dict[str, np.ndarray]:
    seen = []
    for i in range(count):
      pairs = stream[i]
      placed = model.place(pairs)
      batch = model.derive(placed, reference(pairs, placed), 0)
      seen.append(model.pair_metrics(model.score(params, placed), batch))
    return jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs]), *seen)

  return look


def accuracy(s: Settings, seen: dict[str, np.ndarray]) -> Estimate:
  """What a run without a task calls accuracy: see `ACCURACY`."""
  if s.run == "sft":
    shares = np.exp(-seen["nll"][:, 0])
  else:
    shares = (1 + np.sign(seen["rewards"][:, 0] - seen["rewards"][:, 1])) / 2
  return accuracy_estimate(shares[:, None], seen["valid"][:, None])


def point(name: str, estimate: Estimate) -> dict[str, Any]:
  finite = lambda x: float(x) if math.isfinite(x) else None
  return {name: estimate.value, f"{name}_ci": [finite(estimate.low), finite(estimate.high)]}


def plain(found: dict[str, Any]) -> dict[str, float]:
  """The numbers for metrics.jsonl."""
  numbers = {f"eval/{name}": found[name] for name in ("accuracy", "tokens", "truncated")}
  numbers |= {f"eval/sampled/{name}": found["sampled"][name] for name in ("tokens", "truncated")}
  numbers |= {f"eval/pairs/{name}": x for name, x in found["pairs"].items() if x is not None}
  return numbers


def line(found: dict[str, Any]) -> str:
  nll = found["pairs"]["nll"]
  nll = math.nan if nll is None else nll  # as it is where the rewards overflow
  return (
    f"accuracy {found['accuracy']:.1%}, nll {nll:.3f}, "
    f"own answers {found['sampled']['tokens']:.1f} tokens"
  )


def summarise(
  out: Workdir, s: Settings, data: dict[str, Any], made_on: Mapping[str, Any]
) -> dict[str, Any]:
  """summary.json and report.md from what the folder holds."""
  both = start, final = ends(out)
  summary = summary_of(
    out, reward=s.built["loss"]["fn"], seed=s.seed, steps=s.train.steps, setup=made_on
  )
  summary["accuracy_of"] = ACCURACY["task" if "task" in s.built else s.run]
  for name in ("pairs", "sampled"):
    summary[name] = {"start": start and start[name], "final": final and final[name]}
  for when, row in summary["pairs"].items():  # summaries keep the name that they always had
    summary["pairs"][when] = row and row | {"surprise": row["nll"]}
  seen = {name: x["by_length"] for name, x in zip(("before", "after"), both, strict=True) if x}
  plots.reward_by_length(out.path / "reward_by_length.png", seen)
  words = [
    f"Accuracy stands for: {summary['accuracy_of']}.",
    "## Pairs and length",
    table(*(row and row["pairs"] | own(row["sampled"]) for row in both)),
    "![reward against length, before and after](reward_by_length.png)",
    "## Data",
    data_section(data),
  ]
  out.report(summary | {"data": data}, title=f"{s.run} with {summary['method']}", sections=words)
  return summary | {"data": data}


def own(sampled: dict[str, Any]) -> dict[str, Any]:
  """Numbers of the policy's own answers, as the table calls them."""
  return {f"sampled {name}": sampled[name] for name in ("tokens", "truncated")}


def data_section(data: dict[str, Any]) -> str:
  """What became of the rows, in words."""
  counts = (f"{name.replace('_', ' ')} {n}" for name, n in data.items() if name != "padding")
  return (
    ", ".join(counts)
    + f"; {data['padding']:.1%} of the positions that the model reads are padding."
  )


def table(start: dict[str, Any] | None, final: dict[str, Any] | None) -> str:
  """Numbers before and after, as Markdown; None where nothing was evaluated."""
  cell = lambda row, name: "-" if row is None or row[name] is None else f"{row[name]:.4g}"
  body = [
    f"| {name.replace('_', ' ')} | {cell(start, name)} | {cell(final, name)} |"
    for name in (final or start or {})
  ]
  return "\n".join(["| | before | after |", "|---|---:|---:|", *body])

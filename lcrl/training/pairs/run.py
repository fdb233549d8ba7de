"""A run on pairs or single answers: each step trains on one batch of them."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from lcrl.data import batches, sources
from lcrl.data.sources import Encoded, fingerprint
from lcrl.mesh import batch_shards, replicate
from lcrl.registry import build, resolve
from lcrl.training import resume
from lcrl.training.build import build_tokenizer, ends_of
from lcrl.training.clock import Clock, told
from lcrl.training.evaluator import Evaluator
from lcrl.training.metrics import Metrics, values
from lcrl.training.pairs import references
from lcrl.training.pairs.evaluate import make_evaluator, summarise
from lcrl.training.pairs.learner import PairLearner, build_learner, check_batches
from lcrl.training.pairs.losses import LOSSES, TRAINER
from lcrl.training.pairs.mismatched import mismatched
from lcrl.training.progress import introduce, say
from lcrl.training.rl.learner import SCORE_FIELDS
from lcrl.training.rl.step_metrics import device_memory
from lcrl.training.run import Run, Step
from lcrl.training.skipped import Skips
from lcrl.training.workdir import Workdir
from lcrl.types import Pairs, TrainState

PyTree = Any
SIDES = {"preference": (2,), "sft": (1,), "reward_model": (1, 2)}
PREFLIGHT = 4  # batches that the run checks before the first step


class Data(NamedTuple):
  train: list[Encoded]
  held_out: list[Encoded]
  report: dict[str, int]
  batches: Callable[[Sequence[Encoded]], Any]  # encoded -> step -> Pairs, numpy


class RunHooks(NamedTuple):
  """The functions in which kinds of runs on pairs differ."""

  build_learner: Callable[[Any], PairLearner]
  make_evaluator: Callable[..., contextlib.AbstractContextManager[Evaluator]]
  summarise: Callable[[Workdir, Any, dict[str, Any], dict[str, Any]], dict[str, Any]]


ACTING = RunHooks(build_learner, make_evaluator, summarise)


@contextlib.contextmanager
def begin(settings: Any, out: Workdir, *, hooks: RunHooks = ACTING) -> Iterator[Run]:
  """The run that `settings` describe, writing to `out`."""
  s = settings
  loss = resolve(LOSSES[s.run], s.built["loss"], field="loss")
  out.describe(loss=inspect.getdoc(loss.func))  # type: ignore[attr-defined]
  model = hooks.build_learner(s)
  introduce(model, out)
  tokenizer = build_tokenizer(s, model.policy, out.started)
  out.describe(ends=ends_of(tokenizer, s))
  check_batches(model)
  data = read_data(model, tokenizer)
  say(f"data: {len(data.train):,} rows to learn from, {len(data.held_out):,} held out; compiling")
  base = model.base()
  reference = make_reference(model, base, data, out)
  fetch = functools.lru_cache(maxsize=PREFLIGHT)(data.batches(data.train).__getitem__)
  padding = float(np.mean([model.padding(fetch(i)) for i in range(PREFLIGHT)]))
  report = data.report | {"padding": padding}
  held_out = data.held_out[: s.eval.pairs]
  stream = data.batches(held_out)
  evaluating = hooks.make_evaluator(
    model, base, reference, tokenizer, held_out, stream, train=data.train, say=out.note
  )
  with evaluating as evaluator:

    def steps_from(first: int) -> Callable[[TrainState], Step]:
      out.note(preflight(report, [fetch(i) for i in range(PREFLIGHT)]))
      if padding > 0.2:
        logging.warning("%.0f %% is padding: train.pack or batches.size do not fit.", 100 * padding)
      skips = Skips(out, steps=s.train.steps)
      return partial(train_step, model, model.make_update(base), reference, fetch, skips)

    yield Run(
      steps=s.train.steps,
      checkpoint=s.checkpoint,
      evaluate_every=s.eval.every,
      abstract=model.abstract,
      initial=model.initial,
      evaluate=evaluator,
      steps_from=steps_from,
      finish=lambda: hooks.summarise(out, s, report, evaluator.setup),
      data=resume.fingerprint([*data.train, *data.held_out], pair_content),
    )


def pair_content(pair: Encoded) -> tuple[Any, ...]:
  """The parts of a pair that identify the data. The tokens of the prompt are not among them, since
  a chat template may write the date."""
  return pair.id, pair.prompt_hash, [side.tolist() for side in pair.sides], pair.scores


def read_data(model: PairLearner, tokenizer: Any) -> Data:
  """The pairs of the section data, as tokens.

  Raises:
    ValueError: no pair is held out, or the pairs do not fit the run or its loss.
  """
  s, stage = model.settings, model.stage
  spec = s.built["data"]
  split = resolve(sources, spec, field="data")(tokenizer)
  sides, wanted = len(split.train[0].sides), SIDES[s.run]
  if sides not in wanted:
    raise ValueError(
      f"data.fn={spec['fn']!r} gives {sides} answers a prompt; "
      f"run={s.run!r} learns from {' or '.join(map(str, wanted))}."
    )
  if not split.held_out:
    raise ValueError(f"data.held_out leaves nothing to evaluate on: {split.report}.")
  make = partial(
    resolve(batches, s.built["batches"], field="batches"),
    window=spec["window"],
    pad_id=tokenizer.pad_id,
    seed=s.seed,
    shards=batch_shards(model.mesh),
    pieces=s.train.micro_batches,
  )
  parts = split.train, split.held_out
  if "mismatched" in stage.needs:
    parts = mismatched(split.train, spec["window"]), mismatched(split.held_out, spec["window"])
  data = Data(*parts, split.report, make)
  supplied = {*TRAINER, *SCORE_FIELDS, *make(data.train)[0].signals}
  supplied |= {"rejected"} if sides == 2 else set()
  every = (*split.train, *split.held_out)
  if all(pair.scores and np.isfinite(pair.scores).all() for pair in every):
    supplied.add("scores")
  if getattr(s.train, "strengths", False) and "scores" not in supplied:
    raise ValueError("train.strengths goes by the column score, which a row lacks.")
  if missing := set(stage.needs) - supplied:
    raise ValueError(f"the loss needs {sorted(missing)}, which neither data nor trainer supply.")
  return data


def make_reference(
  model: PairLearner, base: PyTree, data: Data, out: Workdir
) -> references.Reference:
  """(pairs as numpy, pairs on the mesh) -> log-probs [B, G, T], or None for a loss without one."""
  if "ref" not in model.stage.needs:
    return lambda *_: None
  s, size = model.settings, model.settings.built["batches"]["size"]
  evaluated, rest = data.held_out[: s.eval.pairs], data.held_out[s.eval.pairs :]

  def passes() -> Iterator[Pairs]:
    # Batches as training and evaluation form them: the shape of a batch can change the last bits of
    # a log-prob, and an untrained policy must have rewards of exactly 0.
    for pairs in filter(None, (data.train, evaluated, rest)):
      stream = data.batches(pairs)
      yield from (stream[i] for i in range(batches.per_epoch(len(pairs), size)))

  make = build(references, s.built["reference"], field="reference")
  pairs = [*data.train, *data.held_out]
  rows = resume.fingerprint(pairs, pair_content)
  return make(references.Subject(model, base, fingerprint(pairs), passes, out.path, rows))


def train_step(
  model: PairLearner,
  update: Callable[..., Any],
  reference: references.Reference,
  fetch: Callable[[int], Pairs],
  skips: Skips,
  state: TrainState,
) -> Step:
  """One step on the next batch, which `fetch` caches. It donates the state."""
  clock, step = Clock(), int(state.step)
  pairs = fetch(step)
  placed = model.place(pairs)
  counted = int(pairs.valid.sum()), int(pairs.mask.sum())
  counters = {
    "pairs": np.asarray(state.counters["pairs"]) + np.int32(counted[0]),
    "tokens": np.asarray(state.counters["tokens"]) + np.float32(counted[1]),
  }
  batch = model.derive(placed, reference(pairs, placed), state.step)
  state, update_metrics = update(state, batch)
  # The update is queued, not done: reading the next batch here hides behind it.
  fetch(step + 1)
  moved = {"position": np.int32(step + 1), "counters": counters}
  state = dataclasses.replace(state, **replicate(model.mesh, moved))
  metrics: Metrics = {
    name: jax.tree.map(np.asarray, metric) for name, metric in update_metrics.items()
  }
  numbers = values(metrics) | clock()
  numbers |= {"tokens_per_s": counted[1] / numbers["time/step"]}
  skips(step + 1, numbers, line(numbers), batch)
  return Step(state, numbers, line(numbers))


def line(numbers: dict[str, float]) -> str:
  text = f"loss {numbers['loss']:7.4f}"
  if "nll" in numbers:
    text += f"  nll {numbers['nll']:6.3f}"
  if "pairs/accuracy" in numbers:
    text += f"  pairs {numbers['pairs/accuracy']:6.1%}  margin {numbers['pairs/margin']:8.3f}"
  return f"{text}  {told(numbers)}"


def preflight(report: dict[str, Any], first: Sequence[Pairs]) -> str:
  """A summary of the data and of the first batches, shown before the first step."""
  lengths = np.concatenate([x.lengths[x.valid] for x in first]).mean(0)
  lines = {
    "rows": ", ".join(f"{name} {n}" for name, n in report.items() if n and name != "padding"),
    "lengths": " and ".join(f"{n:.1f}" for n in lengths) + " tokens an answer",
    "padding": f"{report['padding']:.1%} of the positions that the model reads",
    "memory": device_memory() or "not reported by this device",
  }
  return "\n".join(f"  {name:<12} {text}" for name, text in lines.items())

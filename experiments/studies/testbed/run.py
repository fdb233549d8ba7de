"""Runs the study: start policies first, then every method, a few at a time, written as it goes.

  python -m experiments.studies.testbed.run --workdir=runs/testbed --deadline_seconds=540
  python -m experiments.studies.testbed.run --workdir=runs/more --resume=runs/testbed
  python -m experiments.studies.testbed.run --workdir=runs/new --first_seed=3 --seeds=7 \
    --chosen=experiments/studies/testbed    # more seeds of the coefficients that the report takes

The folder gets starts.npz, starts.json, origin.json, and results.jsonl, one line a run.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.studies.testbed import claims, program
from experiments.studies.testbed import methods as listed
from experiments.studies.testbed.methods import METHODS, Method
from experiments.studies.testbed.program import SMALL, WANTED, Judged, Program, Seen, Sizes
from lcrl import evaluation

FLAGS = flags.FLAGS
STARTS = ("starts.npz", "starts.json")
TOGETHER = 20  # methods of one program


class Run(NamedTuple):
  method: Method
  value: float
  start: str
  seed: int

  @property
  def key(self) -> tuple:
    return self.method.name, self.value, self.start, self.seed


def log(text: str) -> None:
  print(f"[{time.perf_counter() - BEGUN:6.1f} s] {text}", flush=True)


BEGUN = time.perf_counter()


# -- Start policies: one course of imitation a seed; two of its snapshots.


def learn_starts(
  built: Program, sizes: Sizes, seeds: Sequence[int], names: Collection[str]
) -> dict[str, Any]:
  """start -> params [S, ...], of these starts, from the courses that lead to them."""
  told = {name for name in names if name == "told"}
  courses = (built.imitate, {*names} - told), (built.imitate_told, told)
  found: dict[str, Any] = {}
  for imitate, own in courses:
    if own:
      found |= _course(built, imitate, sizes, seeds, own)
  return found


def _course(
  built: Program, imitate: Callable, sizes: Sizes, seeds: Sequence[int], names: Collection[str]
) -> dict[str, Any]:
  """start -> params [S, ...]: the snapshots whose held-out accuracy comes nearest `WANTED`."""
  keys = jnp.stack([jax.random.key(seed) for seed in seeds])
  split = jax.vmap(lambda key: jax.random.split(key, sizes.imitation + 1))(keys)
  params = jax.vmap(program.policy(sizes).init)(split[:, 0])
  carry = params, jax.vmap(program.teacher(sizes).init)(params)
  snapshots, shares = [], []
  for begin in range(0, sizes.imitation, sizes.chunk):
    carry, loss = imitate(carry, split[:, 1 + begin : 1 + begin + sizes.chunk])
    judged = built.judge(carry[0], jnp.full(len(seeds), listed.LEVELS))
    snapshots.append(jax.tree.map(np.asarray, carry[0]))
    shares.append(np.asarray(judged.correct).mean(1))
    step, last = begin + sizes.chunk, np.asarray(loss)[:, -1].mean()
    log(f"imitation step {step}: loss {last:.3f}, right {np.round(shares[-1], 3)}")
  accuracy = np.array(shares)  # [snapshots, S]
  starts = {}
  for name in sorted(names):
    best = np.argmin(np.abs(accuracy - WANTED[name]), axis=0)
    chosen = [jax.tree.map(lambda x, s=s: x[s], snapshots[b]) for s, b in enumerate(best)]
    starts[name] = jax.tree.map(lambda *xs: np.stack(xs), *chosen)
    right = accuracy[best, range(len(seeds))]
    log(f"start {name}: after {(best + 1) * sizes.chunk} steps, right {right}")
  return starts


def save_starts(path: Path, starts: dict[str, Any], seeds: Sequence[int]) -> None:
  """In half precision; runs start from what `load_starts` reads, whether saved now or earlier."""
  flat: dict[str, Any] = {"seeds": np.array(seeds)}
  for name, params in starts.items():
    for at, leaf in jax.tree_util.tree_leaves_with_path(params):
      flat[name + jax.tree_util.keystr(at)] = np.asarray(leaf, np.float16)
  np.savez(path, **flat)


def load_starts(path: Path, sizes: Sizes, seeds: Sequence[int]) -> dict[str, Any]:
  """Raises ValueError if the file is of other seeds."""
  shapes = jax.eval_shape(program.policy(sizes).init, jax.random.key(0))
  with np.load(path) as flat:
    if flat["seeds"].tolist() != list(seeds):
      raise ValueError(f"{path} holds starts of seeds {flat['seeds'].tolist()}, not {list(seeds)}.")
    return {
      name: jax.tree_util.tree_map_with_path(
        lambda at, _, n=name: flat[n + jax.tree_util.keystr(at)].astype(np.float32), shapes
      )
      for name in WANTED
      if any(key.startswith(f"{name}[") for key in flat)
    }


def measured(judged: Judged, sizes: Sizes) -> dict[str, Any]:
  shortest = [sizes.setup.sums.shortest_length(int(d)) for d in judged.difficulty]
  return evaluation.measure(
    judged.correct[:, None],
    judged.lengths[:, None],
    judged.difficulty,
    truncated=judged.lengths[:, None] >= sizes.setup.cap,
    shortest=shortest,
  )


def point(m: dict[str, Any]) -> dict[str, Any]:
  """What is kept of a measurement: six numbers, by difficulty as columns."""
  digits = {"accuracy": 4, "truncated": 4}
  small = lambda key, x, less=0: None if x is None else round(float(x), digits.get(key, 2) - less)
  keys = ("accuracy", "tokens", "tokens_right", "tokens_wrong", "excess_tokens", "truncated")
  levels = m["by_difficulty"]
  columns = {k: [small(k, levels[d][k], 1) for d in levels] for k in (*keys[:2], keys[4])}
  return {
    **{k: small(k, m[k]) for k in keys},
    "by_difficulty": {"difficulty": [*levels], **columns},
  }


def starts_json(
  built: Program, starts: dict[str, Any], sizes: Sizes, seeds: Sequence[int]
) -> dict[str, Any]:
  """Measurements of the start policies, and how often they are right at each length."""
  found: dict[str, Any] = {}
  for name, params in starts.items():
    levels = jnp.full(len(seeds), listed.LEVELS if name == "told" else 1, jnp.int32)
    judged = jax.tree.map(np.asarray, built.judge(params, levels))
    for place, seed in enumerate(seeds):
      one = Judged(*(x[place] for x in judged))
      counts: Counter = Counter()
      for difficulty, length, right in zip(one.difficulty, one.lengths, one.correct, strict=True):
        counts[int(difficulty), int(length), bool(right)] += 1
      table = sorted({(d, n) for d, n, _ in counts})
      by_length = [[d, n, counts[d, n, True], counts[d, n, False]] for d, n in table]
      found[f"{name}/{seed}"] = {**point(measured(one, sizes)), "by_length": by_length}
      if name == "told":
        found[f"{name}/{seed}"]["by_level"] = by_level(one, listed.LEVELS)
      log(f"start {name}, seed {seed}: {found[f'{name}/{seed}']}"[:400])
  return found


# -- Runs.


def runs(
  names: Sequence[str], seeds: Sequence[int], values: Mapping[str, Sequence[float]] | None = None
) -> Iterator[Run]:
  """`values`: the coefficients of some methods; of the others all are tried."""
  for name in names:
    method = METHODS[name]
    tried = (values or {}).get(name, method.values)
    for value, start, seed in itertools.product(tried, method.starts, seeds):
      yield Run(method, value, start, seed)


def chosen_values(report: Path) -> dict[str, tuple[float, ...]]:
  """method -> the one coefficient at which a report takes it, where no claim needs others."""
  results, starts = (json.loads((report / f"{x}.json").read_text()) for x in ("results", "starts"))
  ran = {r["method"] for r in results} - claims.EVERY_COEFFICIENT
  return {name: (claims.best_value(results, starts, name),) for name in METHODS if name in ran}


def queues(waiting: Sequence[Run]) -> list[list[Run]]:
  """One a program: compilers work side by side on a few methods each, and probing ones and those
  of more steps apart."""
  probing, dials = ({m.name for m in family} for family in (listed.PROBING, listed.DIALS))
  names = list(dict.fromkeys(r.method.name for r in waiting))
  names = [name for name in names if name not in probing | dials]
  parts = [names[i : i + TOGETHER] for i in range(0, len(names), TOGETHER)]
  found = [[r for r in waiting if r.method.name in part] for part in (*parts, probing, dials)]
  return [queue for queue in found if queue]


def even(total: int, most: int) -> int:
  """At most that many at once, in as few groups, about as many in each.

  >>> even(366, 72)
  61
  """
  groups = -(-total // most)
  return -(-total // groups)


def train(
  compiled: Compiled,
  sizes: Sizes,
  group: Sequence[Run],
  starts: dict[str, Any],
  refs: dict[tuple[str, int], Any],
  seeds: Sequence[int],
) -> list[dict[str, Any]]:
  """The runs of one group of lanes, as results."""
  built, names = compiled.built, compiled.names
  steps = sizes.setup.steps
  lanes = program.stack(
    [program.lane(r.method, r.value, r.seed, names, refs[r.start, r.seed], steps) for r in group]
  )
  at = [seeds.index(r.seed) for r in group]
  params = program.stack(
    [jax.tree.map(lambda x, i=i: x[i], starts[r.start]) for r, i in zip(group, at, strict=True)]
  )
  states = built.begin(lanes, params)
  ids, curves, watched = program.prompt_ids(sizes), [], []
  blocks = range(0, steps, sizes.block)
  for number, begin in enumerate(blocks):
    states, happened = compiled.train(lanes, states, ids[begin : begin + sizes.block])
    watched.append(jax.tree.map(lambda x: np.asarray(x).sum(1), happened))  # [L, D]
    if number % 4 == 3 or begin + sizes.block >= steps:
      judged = jax.tree.map(np.asarray, built.judge(states.params, lanes.levels))
      curves.append((begin + sizes.block, judged))
  return [_result(run, i, curves, watched, sizes) for i, run in enumerate(group)]


def _result(run: Run, i: int, curves, watched: Sequence[Seen], sizes: Sizes) -> dict[str, Any]:
  m = run.method
  final = Judged(*(x[i] for x in curves[-1][1]))
  last = watched[-2:]  # the last quarter of training, or all of it
  right, pushed = (sum(getattr(w, k)[i] for w in last) for k in ("right", "pushed"))
  share = lambda a, b: [round(float(x / y), 3) if y else None for x, y in zip(a, b, strict=True)]
  total = lambda key: [getattr(w, key)[i].sum() for w in watched]
  compares = m.slots["loss"] not in ("drpo", "disco")  # these do not use advantages
  found = {
    "method": m.name,
    "coefficient": m.coefficient,
    "value": run.value,
    "start": run.start,
    "seed": run.seed,
    **point(measured(final, sizes)),
    "pushed_down": share([pushed.sum()], [right.sum()])[0] if compares else None,
    "pushed_down_by_difficulty": share(pushed, right) if compares else None,
    "curve": [
      [step, round(float(j.correct[i].mean()), 4), round(float(j.lengths[i].mean()), 2)]
      for step, j in curves
    ],
    "training": {
      "accuracy": share(total("right"), total("answers")),
      "tokens": share(total("tokens"), total("answers")),
      "pushed_down": share(total("pushed"), total("right")),
    },
  }
  if m.levels > 1:
    found["by_level"] = by_level(final, m.levels)
  return found


def by_level(judged: Judged, levels: int) -> list[list[float]]:
  """Accuracy and tokens under each digit."""
  mean = lambda x, n: round(float(x[judged.level == n].mean()), 4)
  return [[mean(judged.correct, n), mean(judged.lengths, n)] for n in range(levels)]


def study(
  folder: Path,
  sizes: Sizes,
  *,
  names: Sequence[str],
  seeds: Sequence[int],
  lanes: int,
  deadline: float,
  resume: Path | None,
  values: Mapping[str, Sequence[float]] | None = None,
) -> None:
  """Everything, as far as the deadline (seconds from the start of the process) allows."""
  folder.mkdir(parents=True, exist_ok=True)
  if resume and resume != folder:
    for name in (*STARTS, "results.jsonl"):
      if (resume / name).exists():
        shutil.copyfile(resume / name, folder / name)
  results = folder / "results.jsonl"
  lines = results.read_text().splitlines() if results.exists() else []
  done = {(r["method"], r["value"], r["start"], r["seed"]) for r in map(json.loads, lines)}
  waiting = [run for run in runs(names, seeds, values) if run.key not in done]
  origin = {"device": evaluation.device(), "commit": evaluation.commit()}
  evaluation.write_json(folder / "origin.json", origin)
  log(f"{origin}, {len(waiting)} runs, {len(done)} done, {lanes} at once")
  with ThreadPoolExecutor() as pool:  # compilation takes other cores than imitation
    ready = [Compiled(q, sizes, even(len(q), lanes), pool) for q in queues(waiting)]
    if not ready:
      return
    needed = {run.start for run in waiting}
    starts = _starts(ready[0].built, folder, sizes, seeds, needed)
    refs: dict[tuple[str, int], Any] = {}
    for name, params in starts.items():
      drawn = [np.asarray(x) for x in ready[0].built.draw(params, jnp.array(seeds))]
      refs |= {(name, seed): [x[i] for x in drawn] for i, seed in enumerate(seeds)}
    for compiled in ready:
      _go(compiled, sizes, starts, refs, seeds, results, deadline)


class Compiled:
  """A program for a queue of runs, `lanes` at once; `train` compiles in the pool."""

  def __init__(self, queue: Sequence[Run], sizes: Sizes, lanes: int, pool: ThreadPoolExecutor):
    self.queue, self.lanes, self._pool = queue, lanes, pool
    steps = sizes.setup.steps * queue[0].method.longer
    setup = dataclasses.replace(sizes.setup, steps=steps)
    self.given, self.sizes = sizes, dataclasses.replace(sizes, setup=setup)
    self.names = program.used([r.method for r in queue])
    self.built = program.build(self.sizes, self.names)
    self._train = pool.submit(self._compile)

  def half(self, queue: Sequence[Run]) -> Compiled:
    """The same for fewer lanes."""
    return Compiled(queue, self.given, self.lanes // 2, self._pool)

  def _compile(self):
    sizes = self.sizes
    shape = sizes.setup.rows, sizes.drawn
    refs = np.zeros(shape, bool), np.zeros(shape, np.int32)
    first = self.queue[0]
    lane = program.lane(first.method, first.value, 0, self.names, refs, sizes.setup.steps)
    wide = lambda x: jax.ShapeDtypeStruct((self.lanes, *x.shape), x.dtype)
    lanes = jax.tree.map(wide, lane)
    params = jax.tree.map(wide, jax.eval_shape(program.policy(sizes).init, jax.random.key(0)))
    states = jax.eval_shape(self.built.begin, lanes, params)
    lowered = self.built.train.lower(lanes, states, program.prompt_ids(sizes)[: sizes.block])
    log(f"a program of {self.lanes} lanes is traced")
    compiled = lowered.compile()
    log("and compiled")
    return compiled

  def train(self, *arrays):
    return self._train.result()(*arrays)


def _starts(
  built: Program, folder: Path, sizes: Sizes, seeds: Sequence[int], needed: Collection[str]
) -> dict[str, Any]:
  """Start policies, from the folder if it has them."""
  params, numbers = (folder / name for name in STARTS)
  had = load_starts(params, sizes, seeds) if params.exists() else {}
  if lacking := needed - had.keys():
    save_starts(params, had | learn_starts(built, sizes, seeds, lacking), seeds)
  starts = load_starts(params, sizes, seeds)
  if lacking or not numbers.exists():
    evaluation.write_json(numbers, starts_json(built, starts, sizes, seeds))
  return starts


def _go(
  compiled: Compiled,
  sizes: Sizes,
  starts: dict[str, Any],
  refs: dict[tuple[str, int], Any],
  seeds: Sequence[int],
  results: Path,
  deadline: float,
) -> None:
  """The queue, group after group, while the next would end before the deadline."""
  longest = 0.0
  for begin in range(0, len(compiled.queue), compiled.lanes):
    clock = time.perf_counter()
    if clock - BEGUN + longest > deadline:
      return log(f"stopped before the deadline; {len(compiled.queue) - begin} runs wait")
    group = compiled.queue[begin : begin + compiled.lanes]
    padded = (list(group) * compiled.lanes)[: compiled.lanes]  # one shape, one compilation
    try:
      found = train(compiled, compiled.sizes, padded, starts, refs, seeds)[: len(group)]
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" not in str(error) or compiled.lanes == 1:
        raise
      log(f"{compiled.lanes} lanes do not fit: half as many")
      fewer = compiled.half(compiled.queue[begin:])
      return _go(fewer, sizes, starts, refs, seeds, results, deadline)
    with results.open("a") as file:
      file.writelines(json.dumps(r) + "\n" for r in found)
    took = time.perf_counter() - clock
    longest = max(longest, took if begin else 0.5 * took)  # the first also waits for the compiler
    for name in dict.fromkeys(r.method.name for r in group):
      own = [r for r in found if r["method"] == name]
      mean = {k: np.mean([r[k] for r in own]) for k in ("accuracy", "tokens")}
      log(f"{name}: right {mean['accuracy']:.3f}, tokens {mean['tokens']:.1f}")
    log(f"{len(group)} runs in {took:.1f} s")
  return None


def main(_) -> None:
  chosen = FLAGS.methods or list(METHODS)
  unknown = [name for name in chosen if name not in METHODS]
  if unknown:
    raise app.UsageError(f"--methods: no {', '.join(unknown)} among {', '.join(METHODS)}.")
  study(
    Path(FLAGS.workdir),
    SMALL if FLAGS.smoke else Sizes(),
    names=chosen,
    seeds=range(FLAGS.first_seed, FLAGS.first_seed + FLAGS.seeds),
    lanes=FLAGS.lanes,
    deadline=FLAGS.deadline_seconds,
    resume=Path(FLAGS.resume) if FLAGS.resume else None,
    values=chosen_values(Path(FLAGS.chosen)) if FLAGS.chosen else None,
  )


if __name__ == "__main__":
  flags.DEFINE_string("workdir", "runs/testbed", "Folder of the results; made if absent.")
  flags.DEFINE_string("resume", None, "Folder of an earlier call: its starts and results count.")
  flags.DEFINE_list("methods", [], "Which; all if empty.")
  flags.DEFINE_integer("seeds", 3, "How many.", lower_bound=1)
  flags.DEFINE_integer("first_seed", 0, "Seeds begin with this one.", lower_bound=0)
  flags.DEFINE_string("chosen", None, "Folder of a report: only the coefficients that it takes.")
  flags.DEFINE_integer("lanes", 72, "Runs at once.", lower_bound=1)
  flags.DEFINE_float("deadline_seconds", 540, "Begins no group that would end after this.")
  flags.DEFINE_bool("smoke", False, "A few steps of everything, to see that it runs.")
  app.run(main)

"""Fewer tokens, still right: three rewards on sums whose shortest working is known.

  python -m experiments.demo --seeds=1 --seed=0 --workdir=runs/demo

A small decoder first imitates workings that are longer than necessary. Then it learns by GRPO from
correctness alone, from correctness with LASER's bonus for short answers, and from correctness minus
a price for every token. Nothing else differs. The folder gets a report, plots and summaries.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from tqdm import tqdm

from experiments import testbed
from lcrl import advantages, budgets, evaluation, filters, losses, policies, rewards
from lcrl.commands import command
from lcrl.evaluation import tables
from lcrl.evaluation.report import write_report
from lcrl.tasks.sums import Sums
from lcrl.training import optimizers
from lcrl.types import Budget, PyTree, Recipe, Rollouts, Stage

FLAGS = flags.FLAGS


class Sizes(NamedTuple):
  """Numbers of steps, prompts and answers."""

  imitation: int = 1000  # steps
  batch: int = 64  # demonstrations a step
  steps: int = 100  # of reinforcement learning
  prompts: int = 32  # a step
  group_size: int = 8
  evaluated: int = 2048  # held-out prompts
  parts: int = 10  # progress lines of a phase


class Coefficients(NamedTuple):
  """The differences between the runs: correct + bonus * (right and in time) - price * length."""

  bonus: float = 0.0
  price: float = 0.0


SMALL = Sizes(imitation=4, batch=8, steps=4, prompts=2, group_size=4, evaluated=8, parts=2)
REWARDS = {
  "correctness": Coefficients(),
  "laser": Coefficients(bonus=0.5),
  "naive": Coefficients(price=0.02),
}
TARGET = 23  # tokens: four operands, two of them in the first step, and no re-check
SUMS = Sums()
WORKING: Any = {"recheck": 0.75, "sizes": (0.6, 0.3, 0.1)}  # the demonstrations
POLICY = policies.make(policies.tiny(vocab_size=len(SUMS.symbols)))
OPTIMIZER = optimizers.adamw(learning_rate=3e-4)
ABOUT = """## What was compared

A problem is a sum modulo 10 of 2 to 4 digits, `{problem}`. A step of the working copies a label,
the running value and one to three operands, gives the new value, and may be repeated. The
demonstrations are right and long: mostly one operand a step, {recheck:.0f} % of the steps twice.
Then {steps} steps of GRPO, {prompts} prompts a step with {group_size} answers each, with one of
three rewards:

- **correctness**: 1 if the answer is right, else 0;
- **laser**: {bonus} more if it is right within {target} tokens (LASER, arXiv:2505.15612);
- **naive**: {price} less for every token, right or wrong.

Everything else is equal, random keys included. Each policy is evaluated on {evaluated} held-out
problems; answers are sampled at temperature 1. The shortest correct working of 2, 3 and 4
operands takes {shortest} tokens; "tokens above the shortest" counts right answers.

## One problem, four answers

```
{answers}
```
"""


def recipe(c: Coefficients) -> Recipe[Stage]:
  """GRPO with one reward; coefficients may be traced, so that one program serves all three."""
  return Recipe(
    budget=budgets.fixed(target=TARGET, cap=SUMS.response_length),
    reward=rewards.length_penalty(alpha=c.price, base=rewards.step_bonus(alpha=c.bonus)),
    filter=filters.keep_all(),
    advantage=advantages.group_normalized(),
    loss=losses.clipped_surrogate(clip_low=0.2, clip_high=0.28),
  )


def teacher(steps: int) -> optax.GradientTransformation:
  """The optimizer of so many steps of imitation."""
  return optimizers.adamw(learning_rate=4e-3, warmup_steps=steps // 15, decay_steps=steps)


@partial(jax.jit, static_argnames="sizes")
def _imitate(carry, keys, sizes: Sizes):
  by = teacher(sizes.imitation)
  return testbed.imitate(POLICY, by, carry, keys, sums=SUMS, batch=sizes.batch, **WORKING)


def imitate(seed: int, sizes: Sizes) -> PyTree:
  """The params from which the training on each reward starts."""
  course = partial(_imitate, sizes=sizes)
  return imitated(POLICY, course, seed, steps=sizes.imitation, of=sizes.parts)


def imitated(
  policy: policies.Policy, course: Callable, seed: int, *, steps: int, of: int
) -> PyTree:
  """The params after `steps` of a `course`, jitted steps of `testbed.imitate` by `teacher(steps)`,
  in `of` parts."""
  init_key, key = jax.random.split(jax.random.key(seed))
  params = policy.init(init_key)
  carry = params, teacher(steps).init(params)
  with progress(f"seed {seed}, imitation", steps) as advance:
    for keys in parts(jax.random.split(key, steps), of=of):
      carry, loss = course(carry, keys)
      advance(len(keys), f"loss {loss[-1]:.3f}")
  return carry[0]


@partial(jax.jit, static_argnames="sizes")
def _reinforce(coefficients, state, prompt_ids, seed, sizes: Sizes):
  return testbed.reinforce(
    POLICY,
    recipe(coefficients),
    OPTIMIZER,
    state,
    prompt_ids,
    sums=SUMS,
    group_size=sizes.group_size,
    max_tokens=SUMS.response_length,
    seed=seed,
    data_seed=seed,
  )


def reinforce(
  params: PyTree, name: str, seed: int, sizes: Sizes
) -> tuple[PyTree, dict[str, np.ndarray]]:
  """(params after training on the named reward, curves over the steps)."""
  state = testbed.initial(params, recipe(REWARDS[name]), OPTIMIZER)
  prompt_ids = jnp.arange(sizes.steps * sizes.prompts).reshape(sizes.steps, sizes.prompts)
  curves = []
  with progress(f"seed {seed}, {name}", sizes.steps) as advance:
    for ids in parts(prompt_ids, of=sizes.parts):
      state, curve = _reinforce(REWARDS[name], state, ids, seed, sizes)
      curves.append(jax.tree.map(np.asarray, curve))
      advance(len(ids), f"right {curve.accuracy[-1]:6.1%}  tokens {curve.tokens[-1]:5.1f}")
  joined = {key: np.concatenate([getattr(c, key) for c in curves]) for key in curves[0]._fields}
  return state.params, {"step": np.arange(1, sizes.steps + 1), **joined}


@partial(jax.jit, static_argnames="sizes")
def evaluate(params: PyTree, sizes: Sizes) -> Rollouts:
  """One answer to each held-out prompt; the same keys for every policy."""
  ids = jnp.arange(sizes.evaluated)
  cap = jnp.full((sizes.evaluated, 1), SUMS.response_length)
  return testbed.roll_out(
    POLICY,
    params,
    ids,
    ids,
    Budget(target=cap, cap=cap, level=jnp.zeros_like(cap)),
    jax.random.key(0),
    sums=SUMS,
    max_tokens=SUMS.response_length,
    held_out=True,
  )


def measured(r: Rollouts) -> dict[str, Any]:
  difficulty = np.asarray(r.difficulty)
  shortest = [SUMS.shortest_length(int(d)) for d in difficulty]
  return evaluation.measure(
    r.correct, r.lengths, difficulty, truncated=r.truncated, shortest=shortest
  )


def one_seed(
  seed: int, sizes: Sizes, folder: Path, origin: dict[str, str]
) -> tuple[dict, dict, dict]:
  """Summaries, curves and an example answer of each reward; also written below the folder."""
  start = imitate(seed, sizes)
  policies.save(folder / "start" / f"seed{seed}", POLICY, start)
  rollouts = evaluate(start, sizes)
  at_start, summaries, curves, answers = measured(rollouts), {}, {}, {"start": example(rollouts)}
  for name in REWARDS:
    clock = time.perf_counter()
    params, curves[name] = reinforce(start, name, seed, sizes)
    seconds = time.perf_counter() - clock
    rollouts = evaluate(params, sizes)
    answers[name] = example(rollouts)
    summaries[name] = evaluation.summary(
      measured(rollouts),
      at_start,
      reward=name,
      seed=seed,
      wall_s=seconds,
      **origin,
    )
    home = folder / name / f"seed{seed}"
    home.mkdir(parents=True, exist_ok=True)
    evaluation.write_json(home / "summary.json", summaries[name])
    rows = zip(*(column.tolist() for column in curves[name].values()), strict=True)
    lines = [json.dumps(dict(zip(curves[name], row, strict=True))) + "\n" for row in rows]
    (home / "metrics.jsonl").write_text("".join(lines))
  return summaries, curves, answers


def example(r: Rollouts) -> str:
  """The first of the hardest problems with its answer."""
  row = int(np.argmax(r.difficulty))
  return SUMS.decode(np.asarray(r.tokens[row, 0]).tolist()).rstrip(SUMS.symbols[SUMS.pad_id])


def demo(seeds: Sequence[int], sizes: Sizes, folder: Path) -> str:
  """Trains and evaluates all runs, writes the folder, and returns the table to print."""
  origin = {"device": evaluation.device(), "commit": evaluation.commit()}
  results = [one_seed(seed, sizes, folder, origin) for seed in seeds]
  runs = {
    name: evaluation.pool([summaries[name] for summaries, _, _ in results]) for name in REWARDS
  }
  curves = {name: _stacked([c[name] for _, c, _ in results]) for name in REWARDS}
  rows = {row["run"]: row for row in tables.rows(runs, baseline="correctness")}
  against = {
    name: {
      "tokens_percent": rows[name]["vs_baseline_tokens_percent"],
      "accuracy_points": rows[name]["vs_baseline_points"],
    }
    for name in ("laser", "naive")
  }
  whole = {**runs["laser"], "against_correctness": against, "runs": runs}
  evaluation.write_json(folder / "summary.json", whole)
  report = write_report(
    folder,
    runs,
    title="Fewer tokens, still right: sums with a known shortest working",
    command=f"make demo SEEDS={len(seeds)} SEED={seeds[0]}",
    curves=curves,
  )
  report.write_text(f"{report.read_text()}\n{_about(sizes, results[0][2])}")
  return tables.to_markdown(tables.overview([*rows.values()], baseline="correctness"))


def _about(sizes: Sizes, answers: dict[str, str]) -> str:
  shortest = [str(SUMS.shortest_length(d)) for d in range(SUMS.fewest, SUMS.most + 1)]
  return ABOUT.format(
    **sizes._asdict(),
    recheck=100 * WORKING["recheck"],
    problem=answers["start"].partition("?")[0] + "?",
    bonus=REWARDS["laser"].bonus,
    price=REWARDS["naive"].price,
    target=TARGET,
    shortest=", ".join(shortest),
    answers="\n".join(f"{name:12} {answer}" for name, answer in answers.items()),
  )


def _stacked(curves: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """Curves of several seeds: step [K], the others [S, K]."""
  keys = ("accuracy", "tokens")
  return {"step": curves[0]["step"], **{key: np.stack([c[key] for c in curves]) for key in keys}}


def parts(rows: jax.Array, *, of: int) -> Iterator[jax.Array]:
  """The rows in `of` equal parts, so that nothing compiles twice."""
  size = max(1, len(rows) // of)
  return (rows[i : i + size] for i in range(0, len(rows), size))


class progress:
  """A progress bar on a terminal, plain lines elsewhere."""

  def __init__(self, title: str, total: int):
    self._title, self._total, self._done = title, total, 0
    self._bar = tqdm(total=total, desc=title, unit="step", dynamic_ncols=True, disable=None)

  def __enter__(self) -> Callable[[int, str], None]:
    return self._advance

  def __exit__(self, *_) -> None:
    self._bar.close()

  def _advance(self, steps: int, text: str) -> None:
    self._done += steps
    if self._bar.disable:
      print(f"{self._title}: step {self._done:4d} of {self._total}  {text}", file=sys.stderr)
    else:
      self._bar.set_postfix_str(text, refresh=False)
      self._bar.update(steps)


def main(_) -> None:
  seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.seeds)
  folder = Path(FLAGS.workdir)
  print(demo(seeds, SMALL if FLAGS.smoke else Sizes(), folder))
  print(f"\nThe report is {folder / 'report.md'}; all results are in {folder}.")


if __name__ == "__main__":
  flags.DEFINE_integer("seeds", 1, "How many seeds; results are averaged.", lower_bound=1)
  flags.DEFINE_integer("seed", 0, "The first of them.")
  flags.DEFINE_string("workdir", "runs/demo", "Folder of the results; made if absent.")
  flags.DEFINE_bool("smoke", False, "A few steps of each phase, as a test.")
  command.run(main, "demo")

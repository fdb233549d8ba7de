"""One program for every method: lanes of equal shape, a method in each, told apart by numbers.

L lanes (a method, a coefficient, a start and a seed each), K steps, B prompts, G rollouts of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import testbed
from experiments.studies.testbed import stages
from experiments.studies.testbed.methods import LEVELS, Method
from experiments.studies.testbed.tables import BUDGETS, SLOTS, Setup, stage_tables
from lcrl import policies
from lcrl.masked import masked_mean
from lcrl.tasks.arithmetic import answer, rows
from lcrl.tasks.sums import Sums
from lcrl.training import optimizers
from lcrl.training.keys import step_key
from lcrl.training.scorer import make_scorer
from lcrl.types import Batch, Budget, PyTree, Recipe, Rollouts, TrainState

# Accuracy of the snapshots from which runs start. In the course of the last one, the digit before a
# prompt says how long the working is: of the shortest steps, to single ones that stand twice.
WANTED = {"weak": 0.5, "good": 0.9, "told": 0.9}
WORKING: Any = {"recheck": 0.5, "sizes": (0.6, 0.3, 0.1)}
TOLD: Any = {
  "recheck": (0.0, 0.0, 0.1, 0.4, 0.8),
  "sizes": ((0.0, 0.2, 0.8), (0.2, 0.5, 0.3), (0.6, 0.3, 0.1), (0.8, 0.2, 0.0), (1.0, 0.0, 0.0)),
}
MONITOR = 1_000_000  # the first row of the monitor set: rows that are never trained on


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How much of everything, all static."""

  setup: Setup = dataclasses.field(default_factory=Setup)
  hidden: int = 128
  layers: int = 3
  prompts: int = 16
  group: int = 8
  updates: int = 2  # optimizer steps on each batch
  rate: float = 3e-4
  block: int = 12  # steps between two looks at the monitor set
  monitor: int = 16  # prompts
  judged: int = 1024  # held-out prompts
  imitation: int = 3600  # supervised steps
  teach: float = 2e-3  # their learning rate
  shown: int = 128  # demonstrations a step
  chunk: int = 60  # supervised steps between two snapshots
  drawn: int = 4  # answers of the start policy to each training prompt, for O1-Pruner


SMALL = Sizes(
  setup=Setup(sums=Sums(fewest=2, most=3), cap=24, steps=2, rows=8),
  hidden=32,
  layers=1,
  prompts=2,
  group=4,
  block=1,
  monitor=2,
  judged=32,
  imitation=4,
  shown=8,
  chunk=2,
  drawn=2,
)


class Lane(NamedTuple):
  """One run. The first axis of `choice` and `value` is before and after the step `turn`."""

  choice: Any  # [2, slots] int32, which stage
  value: Any  # [2, slots] float32, its number
  turn: Any  # [] int32
  rate: Any  # [] float32, times the study's learning rate
  levels: Any  # [] int32, digits shown when it is judged
  seed: Any  # [] int32
  ref_correct: Any  # [rows, drawn] bool, of the start policy
  ref_lengths: Any  # [rows, drawn] int32


class Seen(NamedTuple):
  """One step, by difficulty [D]: counts."""

  answers: jax.Array
  right: jax.Array
  tokens: jax.Array
  pushed: jax.Array  # right answers whose mean advantage is negative


class Judged(NamedTuple):
  correct: jax.Array  # [N] bool
  lengths: jax.Array  # [N] int32
  difficulty: jax.Array  # [N] int32
  level: jax.Array  # [N] int32, the digit that was shown


def policy(sizes: Sizes) -> policies.Policy:
  return policies.make(
    policies.tiny(
      vocab_size=len(sizes.setup.sums.symbols),
      hidden_size=sizes.hidden,
      head_dim=sizes.hidden // 4,
      kv_heads=1,
      mlp_size=3 * sizes.hidden,
      layers=sizes.layers,
    )
  )


def lane(method: Method, value: float, seed: int, names: dict[str, list[str]], refs, steps: int):
  """The run as numbers; `names` lists the stages of every slot, in order."""
  later = {**method.slots, **(method.then or {})}
  phases = [[_stage(slots[slot], value) for slot in SLOTS] for slots in (method.slots, later)]
  return Lane(
    choice=np.array(
      [[names[s].index(n) for s, (n, _) in zip(SLOTS, p, strict=True)] for p in phases], np.int32
    ),
    value=np.array([[v for _, v in p] for p in phases], np.float32),
    turn=np.int32(round(value * steps) if method.then else steps),
    rate=np.float32(value if method.coefficient.startswith("learning rate") else 1.0),
    levels=np.int32(method.levels),
    seed=np.int32(seed),
    ref_correct=np.asarray(refs[0]),
    ref_lengths=np.asarray(refs[1]),
  )


def _stage(entry: Any, value: float) -> tuple[str, float]:
  return (entry, value) if isinstance(entry, str) else entry


def used(methods: Sequence[Method]) -> dict[str, list[str]]:
  """slot -> names of the stages that any of the methods needs."""
  tables = [table for m in methods for table in (m.slots, {**m.slots, **(m.then or {})})]
  return {s: sorted({_stage(t[s], 0.0)[0] for t in tables}) for s in SLOTS}


def stack(lanes: Sequence[PyTree]) -> PyTree:
  return jax.tree.map(lambda *xs: jnp.stack(xs), *lanes)


class Program(NamedTuple):
  """The jitted parts; all but the first take L lanes at once."""

  imitate: Callable  # (carry of S seeds, keys [S, K]) -> carry, losses
  imitate_told: Callable  # the same, of the course in which digits tell the length
  begin: Callable  # lanes, params -> states
  train: Any  # lanes, states, ids [block, B] -> states, Seen [L, block, D]
  judge: Callable  # params, levels [L] -> Judged [L, N]
  draw: Callable  # params, seeds [L] -> correct, lengths [L, rows, drawn]


def build(sizes: Sizes, names: dict[str, list[str]]) -> Program:
  """The program for lanes that choose between these stages of every slot."""
  parts = _Parts(sizes, names)
  return Program(
    imitate=jax.jit(jax.vmap(parts.imitate)),
    imitate_told=jax.jit(jax.vmap(partial(parts.imitate, working=TOLD))),
    begin=jax.jit(jax.vmap(parts.begin)),
    train=jax.jit(jax.vmap(parts.train, in_axes=(0, 0, None)), donate_argnums=1),
    judge=jax.jit(jax.vmap(parts.judge)),
    draw=jax.jit(jax.vmap(parts.draw)),
  )


class _Parts:
  """The parts of a `Program` for one lane."""

  def __init__(self, sizes: Sizes, names: dict[str, list[str]]):
    self.sizes, self.setup, self.names = sizes, sizes.setup, names
    self.model = policy(sizes)
    self.tables = stage_tables(self.setup)
    self.score = make_scorer(self.model, needs=("entropy",))
    self.play = partial(
      testbed.roll_out,
      self.model,
      sums=self.setup.sums,
      max_tokens=self.setup.cap,
      shows_level=True,
    )

  def stages_of(self, lane: Lane, phase):
    """(recipe, revise, weigh) of a lane, whose numbers choose between the options of each slot."""
    picked = {}
    for slot, name in enumerate(SLOTS):
      value, index = lane.value[phase, slot], lane.choice[phase, slot]
      picked[name] = [self.tables[name][option](value) for option in self.names[name]], index
    options, index = picked.pop("advantage")
    picked["advantage"] = [stages.tokenwise(option) for option in options], index
    revise, weigh = picked.pop("revise"), picked.pop("weights")
    recipe = Recipe(**{name: stages.chosen(*pair) for name, pair in picked.items()})
    every = lambda pair: lambda *xs: stages.pick([f(*xs) for f in pair[0]], pair[1])
    return recipe, every(revise), every(weigh)

  def optimizer_of(self, lane: Lane):
    rate = self.sizes.rate * lane.rate
    return optax.chain(optimizers.adamw(learning_rate=1.0), optax.scale(rate))

  def begin(self, lane: Lane, params) -> TrainState:
    return testbed.initial(params, self.stages_of(lane, 0)[0], self.optimizer_of(lane))

  def train(self, lane: Lane, state: TrainState, ids):
    recipe, revise, weigh = self.stages_of(lane, (state.step >= lane.turn).astype(jnp.int32))
    answers = _answers(self.setup, lane.seed)
    return testbed.reinforce(
      self.model,
      recipe,
      self.optimizer_of(lane),
      self.observe(lane, state, recipe),
      ids,
      sums=self.setup.sums,
      group_size=self.sizes.group,
      max_tokens=self.setup.cap,
      seed=lane.seed,
      data_seed=lane.seed,
      weigh=weigh,
      updates=self.sizes.updates,
      read=partial(self.read, lane, revise, answers),
      watch=partial(seen, setup=self.setup),
      shows_level=True,
    )

  def observe(self, lane: Lane, state: TrainState, recipe: Recipe) -> TrainState:
    """The state after the reward has seen answers to the monitor set."""
    ids = MONITOR + jnp.arange(self.sizes.monitor)
    key = jax.random.fold_in(step_key(lane.seed, state.step), MONITOR)
    budget = _open(self.setup, self.sizes.monitor, self.sizes.group)
    monitor = self.play(state.params, ids, ids, budget, key, data_seed=lane.seed)
    observe = recipe.reward.observe
    assert observe is not None
    reward = observe(state.recipe.reward, monitor)
    return dataclasses.replace(state, recipe=state.recipe._replace(reward=reward))

  def read(self, lane: Lane, revise: Callable, answers: jax.Array, params, r: Rollouts):
    """`testbed.Read`: the revised rollouts with all signals, and their log-probs."""
    sums = self.setup.sums
    thought = stages.signals(r, sums)["think_end"]
    right = jnp.broadcast_to(answers[r.prompt_ids][:, None], r.correct.shape)
    r = revise(r, right)
    scores = jax.lax.stop_gradient(self.score(params, r))
    values_at = lambda kept: jax.lax.stop_gradient(
      stages.prefix_values(self.score, params, r, right, kept, sums)
    )
    probed: dict[str, Any] = {}
    if "mrt" in self.names["reward"]:
      before, after = jnp.moveaxis(values_at(stages.step_cuts(r, sums)), -1, 0)
      probed |= {"value_before": before, "value_after": after}
    if "budget_relative" in self.names["advantage"]:
      probed["budget_scores"] = values_at(stages.budget_cuts(r, thought, BUDGETS))
    signals: dict[str, Any] = {
      **probed,
      **stages.signals(r, sums),
      "think_length": thought,
      "entropy": scores.entropy,
      "ref_correct": lane.ref_correct[r.prompt_ids],
      "ref_lengths": lane.ref_lengths[r.prompt_ids],
    }
    return dataclasses.replace(r, signals=signals), scores.log_probs

  def judge(self, params, levels) -> Judged:
    ids = jnp.arange(self.sizes.judged)
    level = (ids // 7 % levels).astype(jnp.int32)
    budget = _open(self.setup, self.sizes.judged, 1)
    budget = dataclasses.replace(budget, level=level[:, None])
    r = self.play(params, ids, ids, budget, jax.random.key(0), held_out=True)
    return Judged(r.correct[:, 0], r.lengths[:, 0], r.difficulty, level)

  def draw(self, params, seed):
    ids = jnp.arange(self.setup.rows)
    budget = _open(self.setup, self.setup.rows, self.sizes.drawn)
    r = self.play(params, ids, ids, budget, jax.random.key(1), data_seed=seed)
    return r.correct, r.lengths

  def imitate(self, carry, keys, working=WORKING):
    return testbed.imitate(
      self.model,
      teacher(self.sizes),
      carry,
      keys,
      sums=self.setup.sums,
      batch=self.sizes.shown,
      levels=LEVELS,
      **working,
    )


def teacher(sizes: Sizes) -> optax.GradientTransformation:
  return optimizers.adamw(
    learning_rate=sizes.teach,
    warmup_steps=max(1, sizes.imitation // 15),
    decay_steps=sizes.imitation,
  )


def seen(batch: Batch, *, setup: Setup) -> Seen:
  r = batch.rollouts
  advantage = masked_mean(batch.advantages, r.mask, -1)
  pushed = r.correct & batch.keep & (advantage < 0)
  place = r.difficulty - setup.sums.fewest
  size = setup.sums.most - setup.sums.fewest + 1
  count = lambda x: jnp.zeros(size).at[place].add(x.sum(-1).astype(jnp.float32))
  return Seen(count(r.valid), count(r.correct), count(r.lengths), count(pushed))


def prompt_ids(sizes: Sizes) -> np.ndarray:
  """[steps, B]: every epoch in an order of its own, the same for every run."""
  rng = np.random.default_rng(0)
  needed = sizes.setup.steps * sizes.prompts
  epochs = -(-needed // sizes.setup.rows)
  ids = np.concatenate([rng.permutation(sizes.setup.rows) for _ in range(epochs)])[:needed]
  return ids.reshape(sizes.setup.steps, sizes.prompts).astype(np.int32)


def _answers(setup: Setup, seed) -> jax.Array:
  """[rows], the right ones of the training set."""
  problems = rows(setup.sums, jnp.arange(setup.rows), seed=seed)
  return jax.vmap(partial(answer, setup.sums))(problems)


def _open(setup: Setup, prompts: int, group: int) -> Budget:
  cap = jnp.full((prompts, group), setup.cap, jnp.int32)
  return Budget(target=cap, cap=cap, level=jnp.zeros_like(cap))

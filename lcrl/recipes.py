"""A method is five stages, one a slot. Only this module knows all five slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lcrl import advantages, budgets, filters, rewards
from lcrl.losses import policy as losses
from lcrl.losses import weights
from lcrl.registry import build, resolve
from lcrl.rewards.base import terms_of
from lcrl.types import Recipe, Stage

__all__ = ["Recipe", "Stage", "from_config", "init", "needs", "numbers", "signals", "switch_after"]


def __dir__() -> list[str]:
  return __all__


Weigh = Callable[[jax.Array, jax.Array], jax.Array]
NOT_SIGNALS = frozenset({"group", "ref", "truncated"})  # needs that no signal satisfies
SLOTS = Recipe(budget=budgets, reward=rewards, filter=filters, advantage=advantages, loss=losses)


def from_config(config: Mapping[str, Any], *, updates: int = 1) -> tuple[Recipe[Stage], Weigh]:
  """The stages that the sections budget, reward, filter, advantage and loss of a config name,
  and the weighting that its section weights names.

  A section `then=[dict(at=1000, reward=dict(fn=...)), ...]` replaces the sections that it names
  after `at` steps. `updates` is how often a step applies the loss.

  Raises:
    ValueError: a section is missing, or names what its slot does not have; it names the field.

  >>> names = dict(filter="keep_all", advantage="group_normalized", loss="clipped_surrogate")
  >>> config = {slot: dict(fn=name) for slot, name in names.items()} | dict(reward=dict(fn="kimi"))
  >>> config |= dict(budget=dict(fn="fixed", target=8), weights=dict(fn="token_mean"))
  >>> recipe, weigh = from_config(config)
  >>> needs(recipe)
  ('group',)
  """
  phases = config.get("then") or ()
  _check_phases(phases)
  by_slot = {slot: in_force(config, slot) for slot in Recipe._fields}
  _check_levels(by_slot["budget"], by_slot["reward"])
  recipe = Recipe(**{slot: _in_turn(slot, own, updates) for slot, own in by_slot.items()})
  if not recipe.loss.coupled and jax.tree.leaves(recipe.loss.init()):
    raise ValueError(f"loss.fn={config['loss']['fn']!r} has a state, so it must be coupled.")
  return recipe, resolve(weights, _section(config, "weights"), field="weights")


def in_force(config: Mapping[str, Any], slot: str) -> dict[int, Stage]:
  """The step after which it holds -> each stage that the config names for a slot, in order."""
  found = {0: _stage(config, slot, slot)}
  for i, phase in enumerate(config.get("then") or ()):
    if slot in phase:
      found[phase["at"]] = _stage(phase, slot, f"then[{i}].{slot}")
  return found


def _in_turn(slot: str, stages: Mapping[int, Stage], updates: int) -> Stage:
  """One stage of all that `in_force` gives."""
  if len(stages) == 1:
    return stages[0]
  per_step = updates if slot == "loss" else 1
  counts = [at * per_step for at in stages if at]
  return switch_after(counts, [*stages.values()], coupled=slot == "loss")


def _check_levels(budgets_of: Mapping[int, Stage], rewards_of: Mapping[int, Stage]) -> None:
  """Raises ValueError if a reward has numbers for other levels than the budget beside it."""
  for at in sorted({*budgets_of, *rewards_of}):
    budget, reward = (own[max(a for a in own if a <= at)] for own in (budgets_of, rewards_of))
    if budget.levels and reward.levels and budget.levels != reward.levels:
      since = f" after step {at}" if at else ""
      raise ValueError(
        f"reward has numbers for {reward.levels} levels{since}, and budget gives {budget.levels}: "
        "it needs one a level."
      )


def _stage(config: Mapping[str, Any], slot: str, field: str) -> Stage:
  return build(getattr(SLOTS, slot), _section(config, slot), field=field, gives=Stage)


def _check_phases(phases: Sequence[Mapping[str, Any]]) -> None:
  before = 0
  for i, phase in enumerate(phases):
    if unknown := phase.keys() - {"at", *Recipe._fields}:
      raise ValueError(
        f"then[{i}] has {sorted(unknown)}; it may replace {', '.join(Recipe._fields)}."
      )
    if "at" not in phase or len(phase) == 1:
      raise ValueError(f"then[{i}] needs the step `at`, and what it replaces from there on.")
    if phase["at"] <= before:
      raise ValueError(f"then[{i}].at must be above {before}, got {phase['at']}.")
    before = phase["at"]


class ScheduleState(NamedTuple):
  """The state of `switch_after`."""

  applied: jax.Array  # [] int32, how often the slot was applied
  states: tuple[Any, ...]  # one a stage


def switch_after(counts: Sequence[int], stages: Sequence[Stage], *, coupled: bool = False) -> Stage:
  """The first stage, and stage i + 1 once the slot has been applied `counts[i]` times.

  Every stage has a state of its own, which changes only while the stage is active. If one stage
  gives an output per rollout and another per token, both give it per token. A loss has a state
  then, so it must be `coupled`.

  >>> first, second = (Stage(lambda: (), lambda state, x, n=n: (x + n, state)) for n in (1, 10))
  >>> both = switch_after([1], [first, second])
  >>> out, state = both.apply(both.init(), jnp.zeros(()))
  >>> float(out), float(both.apply(state, jnp.zeros(()))[0])
  (1.0, 10.0)
  """

  def active(state: ScheduleState) -> jax.Array:
    return jnp.sum(state.applied >= jnp.asarray(counts, jnp.int32), dtype=jnp.int32)

  def apply(state: ScheduleState, *inputs, **knobs):
    def branch(i: int):
      def run(states):
        out, new = stages[i].apply(states[i], *inputs, **knobs)
        return out, _replaced(states, i, new)

      return run

    branches = _same_rank([branch(i) for i in range(len(stages))], state.states)
    out, states = jax.lax.switch(active(state), branches, state.states)
    return out, ScheduleState(state.applied + 1, states)

  def seen_by(field: str):
    """(state, rollouts) -> state: what the active stage's function `field` makes of rollouts."""

    def change(state: ScheduleState, rollouts):
      def branch(i: int):
        function = getattr(stages[i], field)
        if function is None:
          return lambda states: states
        return lambda states: _replaced(states, i, function(states[i], rollouts))

      branches = [branch(i) for i in range(len(stages))]
      return state._replace(states=jax.lax.switch(active(state), branches, state.states))

    return change

  def collect(state: ScheduleState, field: str, *inputs, absent: float):
    """By name what the active stage's function `field` returns; `absent` where it has no value."""
    values: dict[str, jax.Array] = {}
    for i, (stage, own) in enumerate(zip(stages, state.states, strict=True)):
      function = getattr(stage, field)
      for name, x in (function(own, *inputs) if function else {}).items():
        values[name] = jnp.where(active(state) == i, x, values.get(name, absent))
    return values

  has = lambda field: any(getattr(stage, field) for stage in stages)
  if has("terms"):
    stages = [stage._replace(terms=terms_of(stage)) for stage in stages]
  rows = [stage.rows for stage in stages if stage.rows]
  targets = lambda state, r: collect(state, "targets", r, absent=jnp.inf)
  fractions = lambda state, *inputs: collect(state, "fractions", *inputs, absent=jnp.nan)
  return Stage(
    init=lambda: ScheduleState(jnp.zeros((), jnp.int32), tuple(stage.init() for stage in stages)),
    apply=apply,
    needs=tuple(dict.fromkeys(name for stage in stages for name in stage.needs)),
    observe=seen_by("observe") if has("observe") else None,
    coupled=coupled or has("coupled"),
    rows=min(rows, default=0),
    targets=targets if has("targets") else None,
    numbers=lambda s: collect(s, "numbers", absent=jnp.nan) | {"turn": active(s)},
    fractions=fractions if has("fractions") else None,
    terms=(lambda state, r: collect(state, "terms", r, absent=0.0)) if has("terms") else None,
    learn=seen_by("learn") if has("learn") else None,
    levels=max(stage.levels for stage in stages),
  )


def _replaced(states: tuple[Any, ...], i: int, new: Any) -> tuple[Any, ...]:
  return (*states[:i], new, *states[i + 1 :])


def _same_rank(branches: Sequence[Callable], states) -> Sequence[Callable]:
  """The branches; if one gives [B, G, T], those that give [B, G] repeat it for every token."""
  outs = [jax.eval_shape(branch, states)[0] for branch in branches]
  shape = next((out.shape for out in outs if getattr(out, "ndim", 0) == 3), None)
  if shape is None:
    return branches

  def per_token(branch):
    def run(states):
      out, new = branch(states)
      return (out if out.ndim == 3 else jnp.broadcast_to(out[..., None], shape)), new

    return run

  return [per_token(branch) for branch in branches]


def init(recipe: Recipe[Stage]) -> Recipe[Any]:
  """The first state of every stage.

  >>> ending = Stage(init=lambda: jnp.zeros(()), apply=lambda state: (state, state + 1))
  >>> init(Recipe(ending, ending, ending, ending, ending)).loss
  Array(0., dtype=float32)
  """
  return Recipe(*(stage.init() for stage in recipe))


def numbers(recipe: Any, states: Any) -> dict[str, jax.Array]:
  """What the stages before the loss have learned, [] each, as "state/slot/stage/number"; of a
  `Recipe`, or of another tuple of slots.

  >>> price = Stage(lambda: 0.5, lambda state: ((), state), numbers=lambda state: {"price": state})
  >>> plain = Stage(lambda: (), lambda state: ((), state))
  >>> numbers(Recipe(plain, price, plain, plain, plain), ((), 0.5, (), (), ()))
  {'state/reward/price': 0.5}
  """
  slots = zip(recipe._fields, recipe, states, strict=True)
  return {
    f"state/{slot}/{name}": x
    for slot, stage, state in slots
    if slot != "loss" and stage.numbers
    for name, x in stage.numbers(state).items()
  }


def signals(recipe: Recipe[Stage]) -> tuple[str, ...]:
  """The signals of rollouts that stages before the loss ask for, each once.

  >>> stage = lambda *needs: Stage(init=lambda: (), apply=lambda state: ((), state), needs=needs)
  >>> signals(Recipe(stage(), stage("truncated"), stage("entropy"), stage("entropy"), stage("ref")))
  ('entropy',)
  """
  names = (name for stage in recipe[:-1] for name in stage.needs)
  return tuple(dict.fromkeys(name for name in names if name not in NOT_SIGNALS))


def needs(recipe: Recipe[Stage]) -> tuple[str, ...]:
  """What the stages ask of task, sampler and trainer, each once.

  >>> stage = lambda *needs: Stage(init=lambda: (), apply=lambda state: ((), state), needs=needs)
  >>> needs(Recipe(stage(), stage("truncated"), stage("entropy"), stage("entropy"), stage("ref")))
  ('truncated', 'entropy', 'ref')
  """
  return tuple(dict.fromkeys(name for stage in recipe for name in stage.needs))


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  if name not in config:
    raise ValueError(f"the config has no section {name!r}.")
  return config[name]

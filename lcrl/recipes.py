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
from lcrl.types import Recipe, Stage

__all__ = ["Recipe", "Stage", "from_config", "in_turn", "init", "needs", "numbers", "signals"]


def __dir__() -> list[str]:
  return __all__


Weigh = Callable[[jax.Array, jax.Array], jax.Array]
SLOTS = Recipe(budget=budgets, reward=rewards, filter=filters, advantage=advantages, loss=losses)


def from_config(config: Mapping[str, Any], *, updates: int = 1) -> tuple[Recipe[Stage], Weigh]:
  """The stages that the sections budget, reward, filter, advantage and loss of a config name,
  and the weighting that its section weights names.

  A section `then=[dict(at=1000, reward=dict(fn=...)), ...]` takes the place of what it names after
  `at` steps. `updates` is how often a step applies the loss.

  Raises:
    ValueError: a section is missing, or names what its slot does not have; it names the field.
  """
  later = config.get("then") or ()
  _check(later)
  stages = {slot: _stage(config, slot, slot) for slot in Recipe._fields}
  for slot in Recipe._fields:
    turns = [(i, phase) for i, phase in enumerate(later) if slot in phase]
    if turns:
      others = [_stage(phase, slot, f"then[{i}].{slot}") for i, phase in turns]
      each = updates if slot == "loss" else 1
      starts = [phase["at"] * each for _, phase in turns]
      stages[slot] = in_turn([stages[slot], *others], starts, coupled=slot == "loss")
  recipe = Recipe(**stages)
  if not recipe.loss.coupled and jax.tree.leaves(recipe.loss.init()):
    raise ValueError(f"loss.fn={config['loss']['fn']!r} has a state, so it must be coupled.")
  return recipe, resolve(weights, _section(config, "weights"), field="weights")


def _stage(config: Mapping[str, Any], slot: str, field: str) -> Stage:
  return build(getattr(SLOTS, slot), _section(config, slot), field=field, gives=Stage)


def _check(later: Sequence[Mapping[str, Any]]) -> None:
  before = 0
  for i, phase in enumerate(later):
    if unknown := phase.keys() - {"at", *Recipe._fields}:
      raise ValueError(
        f"then[{i}] has {sorted(unknown)}; it may replace {', '.join(Recipe._fields)}."
      )
    if "at" not in phase or len(phase) == 1:
      raise ValueError(f"then[{i}] needs the step `at`, and what it replaces from there on.")
    if phase["at"] <= before:
      raise ValueError(f"then[{i}].at must be above {before}, got {phase['at']}.")
    before = phase["at"]


class Turns(NamedTuple):
  """The state of `in_turn`."""

  applied: jax.Array  # [] int32, how often
  states: tuple[Any, ...]  # one a stage


def in_turn(stages: Sequence[Stage], starts: Sequence[int], *, coupled: bool = False) -> Stage:
  """The first stage, and after `starts[i]` applications stage i + 1 in its place.

  Each has its own state, which rests while another one's turn is. What one of them gives a rollout
  and another a token, both give a token. A state makes a loss `coupled`.
  """

  def turn(state: Turns) -> jax.Array:
    return jnp.sum(state.applied >= jnp.asarray(starts, jnp.int32), dtype=jnp.int32)

  def apply(state: Turns, *inputs, **knobs):
    def given(i):
      def run(states):
        out, new = stages[i].apply(states[i], *inputs, **knobs)
        return out, (*states[:i], new, *states[i + 1 :])

      return run

    runs = [given(i) for i in range(len(stages))]
    out, states = jax.lax.switch(turn(state), _alike(runs, state.states), state.states)
    return out, Turns(state.applied + 1, states)

  def observe(state: Turns, monitor):
    def given(i):
      watch = stages[i].observe
      return lambda states: (
        (*states[:i], watch(states[i], monitor), *states[i + 1 :]) if watch else states
      )

    runs = [given(i) for i in range(len(stages))]
    return state._replace(states=jax.lax.switch(turn(state), runs, state.states))

  def selected(state: Turns, found: Sequence[dict[str, jax.Array]], absent: float):
    """By name what the stage gives whose turn it is, `absent` where it gives none."""
    whole: dict[str, jax.Array] = {}
    for i, one in enumerate(found):
      for name, x in one.items():
        whole[name] = jnp.where(turn(state) == i, x, whole.get(name, absent))
    return whole

  def targets(state: Turns, r):
    pairs = zip(stages, state.states, strict=True)
    return selected(state, [s.targets(own, r) if s.targets else {} for s, own in pairs], jnp.inf)

  def numbers_of(state: Turns):
    pairs = zip(stages, state.states, strict=True)
    found = [s.numbers(own) if s.numbers else {} for s, own in pairs]
    return selected(state, found, jnp.nan) | {"turn": turn(state)}

  def fractions(state: Turns, scores, batch):
    pairs = zip(stages, state.states, strict=True)
    found = [s.fractions(own, scores, batch) if s.fractions else {} for s, own in pairs]
    return selected(state, found, jnp.nan)

  rows = [stage.rows for stage in stages if stage.rows]
  return Stage(
    init=lambda: Turns(jnp.zeros((), jnp.int32), tuple(stage.init() for stage in stages)),
    apply=apply,
    needs=tuple(dict.fromkeys(name for stage in stages for name in stage.needs)),
    observe=observe if any(stage.observe for stage in stages) else None,
    coupled=coupled or any(stage.coupled for stage in stages),
    rows=min(rows, default=0),
    targets=targets if any(stage.targets for stage in stages) else None,
    numbers=numbers_of,
    fractions=fractions if any(stage.fractions for stage in stages) else None,
  )


def _alike(runs: Sequence[Callable], states) -> Sequence[Callable]:
  """The same, but [B, G] is given to every token where another one gives [B, G, T]."""
  outs = [jax.eval_shape(run, states)[0] for run in runs]
  shape = next((out.shape for out in outs if getattr(out, "ndim", 0) == 3), None)
  if shape is None:
    return runs

  def widened(run):
    def wide(states):
      out, new = run(states)
      return (out if out.ndim == 3 else jnp.broadcast_to(out[..., None], shape)), new

    return wide

  return [widened(run) for run in runs]


def init(recipe: Recipe[Stage]) -> Recipe[Any]:
  """The first state of every stage."""
  return Recipe(*(stage.init() for stage in recipe))


def numbers(recipe: Any, states: Any) -> dict[str, jax.Array]:
  """What the stages before the loss have learned, [] each, as "state/slot/stage/number"; of a
  `Recipe`, or of another tuple of slots."""
  slots = zip(recipe._fields, recipe, states, strict=True)
  told = ((slot, s.numbers(state)) for slot, s, state in slots if slot != "loss" and s.numbers)
  return {f"state/{slot}/{name}": x for slot, found in told for name, x in found.items()}


def signals(recipe: Recipe[Stage]) -> tuple[str, ...]:
  """The signals of rollouts that stages before the loss ask for, each once."""
  names = (name for stage in recipe[:-1] for name in stage.needs)
  return tuple(dict.fromkeys(name for name in names if name not in ("group", "ref")))


def needs(recipe: Recipe[Stage]) -> tuple[str, ...]:
  """What the stages ask of task, sampler and trainer, each once."""
  return tuple(dict.fromkeys(name for stage in recipe for name in stage.needs))


def _section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
  if name not in config:
    raise ValueError(f"the config has no section {name!r}.")
  return config[name]

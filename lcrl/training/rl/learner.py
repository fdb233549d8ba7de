"""The learner of an RL run: the policy, its training state, and the compiled phases of a step.

It checks the config before anything is compiled; errors name the field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lcrl import compiler, recipes
from lcrl.mesh import (
  batch_sharding,
  batch_shards,
  check_divides,
  first_devices,
  make_mesh,
  replicated,
  sampler_mesh,
)
from lcrl.policies import Policy, sources
from lcrl.policies.hf import Source
from lcrl.registry import build
from lcrl.training import automatic, optimizers
from lcrl.training.automatic import rows_at_once
from lcrl.training.checkpoint import AsSaved
from lcrl.training.layout import first_state, lay_out
from lcrl.training.memory import check_rows, check_state
from lcrl.training.packed import PackedScore, PackedUpdate
from lcrl.training.rl.settings import Settings
from lcrl.training.scorer import make_scorer
from lcrl.training.step import score_all, shape, update
from lcrl.types import Batch, Recipe, Stage, TrainState

PyTree = Any
SCORE_FIELDS = ("entropy", "log_sum_sq", "logits_at")
REF = "ref_log_probs"  # the signal; "ref" is the loss's name for them


@dataclasses.dataclass(frozen=True, eq=False)
class Learner:
  """The policy on its mesh: how to make its training state, and the jitted phases of a step."""

  settings: Settings
  mesh: Mesh
  policy: Policy
  recipe: Recipe[Stage]
  optimizer: optax.GradientTransformation
  shardings: TrainState  # of the training state
  abstract: TrainState  # its shapes, dtypes and shardings
  initial: Callable[[], TrainState]
  shape: Callable[..., Any]  # states, rollouts, step, key -> batch, states
  ready: Callable[[Batch], Any]  # a batch -> the argument with which `update` need not wait
  update: Callable[..., Any]  # state, batch -> state, metrics; the state is donated
  measure: Callable[..., Any]  # params, rollouts -> TokenScores with the fields `measured`
  measured: tuple[str, ...]  # score fields that stages before the loss need as signals
  needs_reference: bool
  chosen: dict[str, Any]  # fields that may be "auto" -> their values in this run

  @property
  def sampler_mesh(self) -> Mesh:
    """The devices that sample: those of `mesh`, or dedicated ones."""
    return sampler_mesh(self.mesh, self.settings.sampling.devices)

  def policy_params(self, trained: PyTree) -> PyTree:
    """The parameters of the policy, from the trained ones."""
    return trained


def build_learner(settings: Settings, *, devices=None) -> Learner:
  """Builds the part of a run that needs no task: state and compiled programs.

  Args:
    settings: the settings of the run.
    devices: the devices of the mesh; None: all devices. To compile, a described topology is enough.
  """
  s = settings
  recipe, weigh = recipes.from_config(s.slots, updates=s.train.updates)
  wanted = recipes.needs(recipe)
  _check(s, recipe)
  mesh = _training_mesh(s, devices)
  if devices is None:
    _check_rows(s, mesh)
  source = build(sources, s.built["policy"], field="policy", gives=Source)
  policy, s, chosen = automatic.resolve(
    source.policy,
    s,
    mesh,
    rows=rows_at_once(
      mesh, s.train.prompts * s.train.group_size, s.train.micro_batches * s.train.updates
    ),
    length=s.train.max_prompt_tokens + s.train.max_tokens,
    needs=recipe.loss.needs,
  )
  pack: int | None = chosen["train.pack"]
  optimizer = optimizers.from_config(s.built["optimizer"])
  fields = tuple(name for name in recipe.loss.needs if name in SCORE_FIELDS)
  signals = recipes.signals(recipe)
  measured = tuple(name for name in SCORE_FIELDS if name in signals)
  make_score = partial(
    make_scorer, policy, temperature=s.sampling.temperature, mesh=mesh, pack=pack
  )
  score = make_score(needs=fields, keep=not s.train.head_remat)

  def start(params) -> TrainState:
    passed = jnp.zeros((s.train.window, 2), jnp.int32) if s.train.window else None
    return first_state(params, optimizer, recipes.init(recipe), counted="prompts", passed=passed)

  state = lay_out(mesh, optimizer, start, policy.init, policy.axes)
  if devices is None:
    check_state(mesh, state.abstract)
  whole, rows = replicated(mesh), batch_sharding(mesh)

  def pending_sharding(shape: tuple[int, ...]) -> jax.sharding.Sharding:
    return rows if shape and shape[0] % batch_shards(mesh) == 0 else whole

  pending = AsSaved(pending_sharding) if s.train.steps_ahead else None

  def initial() -> TrainState:
    params = source.params(jax.random.key(s.seed), state.params)
    return jax.jit(start, out_shardings=state.shardings)(params)

  step = partial(
    update,
    score=score,
    recipe=recipe,
    weigh=weigh,
    optimizer=optimizer,
    micro_batches=s.train.micro_batches,
    updates=s.train.updates,
    unstack_for_grad=policy.unstack_for_grad,
  )
  # Donation lets the new state take the memory of the old one: a second copy of parameters and
  # moments would not fit. The caller must copy all that it still needs of the old state.
  update_: Callable[..., Any] = jax.jit(
    step,
    donate_argnums=0,
    out_shardings=(state.shardings, whole),
    static_argnames="sizes",
    compiler_options=compiler.options(mesh) or None,
  )
  measure: Callable[..., Any] = jax.jit(
    partial(score_all, make_score(needs=measured), pieces=s.train.micro_batches),
    out_shardings=rows,
    static_argnames="sizes",
  )
  ready: Callable[[Batch], Any] = lambda batch: batch
  if pack is not None:
    cut = {"width": pack, "shards": batch_shards(mesh), "pieces": s.train.micro_batches}
    update_ = PackedUpdate(update_, mesh, policy, cut | {"parts": s.train.updates})
    ready = update_.ready
    measure = PackedScore(measure, mesh, policy, cut)
  return Learner(
    settings=s,
    mesh=mesh,
    policy=policy,
    recipe=recipe,
    optimizer=optimizer,
    shardings=state.shardings,
    abstract=dataclasses.replace(state.abstract, pending=pending),
    initial=initial,
    shape=jax.jit(partial(shape, recipe, weigh=weigh), out_shardings=(rows, whole)),
    ready=ready,
    update=update_,
    measure=measure,
    measured=measured,
    needs_reference="ref" in wanted or REF in signals,
    chosen=chosen,
  )


def _training_mesh(s: Settings, devices) -> Mesh:
  """The devices that train: all but the dedicated ones. Batches must divide over both."""
  available = first_devices(s.mesh.devices, devices)
  count = len(available) - s.sampling.devices
  if count < 1:
    raise ValueError(
      f"sampling.devices={s.sampling.devices} of {len(available)}: none is left to train."
    )
  mesh = make_mesh(**s.mesh.axes, devices=available[:count])
  check_divides(mesh, prompts=s.train.prompts, pieces=s.train.micro_batches * s.train.updates)
  if s.sampling.devices:
    check_divides(sampler_mesh(mesh, s.sampling.devices), prompts=s.train.prompts)
  else:
    parts, of = mesh.shape["sequence"], "mesh.sequence, over which it samples too"
    check_divides(mesh, prompts=s.train.prompts, pieces=parts, of=of)
  return mesh


def _check_rows(s: Settings, mesh: Mesh) -> None:
  """Raises ValueError, by field, for rows that the machine cannot hold."""
  longest = s.train.max_prompt_tokens + s.train.max_tokens
  for prompts, each, field in (
    (s.train.prompts, s.train.group_size, "train.prompts * train.group_size"),
    (s.train.prompts, s.eval.samples, "train.prompts * eval.samples"),
    (s.monitor.prompts * bool(s.monitor.every), s.train.group_size, "monitor.prompts"),
  ):
    check_rows(mesh, prompts * each, longest, field)


def _check(s: Settings, recipe: Recipe[Stage]) -> None:
  """Raises ValueError if the run lacks something that the recipe needs."""
  if missing := set(recipe.loss.needs) - {*SCORE_FIELDS, "group", "ref"}:
    raise ValueError(f"the loss needs {sorted(missing)}, which nothing here supplies.")
  if "group" in recipes.needs(recipe) and s.train.group_size < 2:
    raise ValueError(
      f"train.group_size must be at least 2: advantage.fn={s.slots['advantage']['fn']!r} compares "
      f"a rollout with the others of its group, got {s.train.group_size}."
    )
  for slot, stage in recipe._asdict().items():
    if stage.observe and not s.monitor.every:
      raise ValueError(
        f"monitor.every must be at least 1: {slot}.fn={s.slots[slot]['fn']!r} learns from a "
        "monitor set of prompts, got 0."
      )
  if s.train.head_remat is False and (more := {"entropy", "log_sum_sq"} & set(recipe.loss.needs)):
    raise ValueError(
      f"train.head_remat=False keeps what log-probs need and no more: loss.fn="
      f"{s.slots['loss']['fn']!r} needs {sorted(more)}."
    )

"""The learner of an RL run: the policy, its training state, and the compiled phases of a step.

It checks the config before anything is compiled; errors name the field.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lcrl import compiler, recipes
from lcrl.losses.distillation import TEACHER
from lcrl.mesh import (
  batch_sharding,
  batch_shards,
  check_divides,
  check_sampling_devices,
  first_devices,
  make_mesh,
  param_shardings,
  replicated,
  sampler_mesh,
)
from lcrl.policies import Policy, sources
from lcrl.policies.hf import Source
from lcrl.registry import build
from lcrl.training import automatic, balance, optimizers
from lcrl.training.automatic import rows_at_once
from lcrl.training.checkpoint import AsSaved
from lcrl.training.layout import Layout, abstract, first_state, lay_out
from lcrl.training.memory import check_rows, check_state
from lcrl.training.packed import PackedScore, PackedUpdate
from lcrl.training.piece_scorer import PieceScorer
from lcrl.training.rl.settings import Settings
from lcrl.training.scorer import Score, make_scorer
from lcrl.training.step import score_all, shape, update
from lcrl.training.trainable import OnBase, Trainable, learn, trainable
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
  part: Trainable
  base: Callable[[], PyTree]  # the frozen parameters, loaded once; () without adapters
  frozen: PyTree  # the same, abstract
  initial: Callable[[], TrainState]
  shape: Callable[..., Any]  # states, rollouts, step, key -> batch, states
  ready: Callable[[Batch], Any]  # a batch -> the argument with which `update` need not wait
  update: Callable[..., Any]  # state, batch -> state, metrics; the state is donated
  measure: Callable[..., Any]  # `acting` params, rollouts -> TokenScores with fields `measured`
  measured: tuple[str, ...]  # score fields that stages before the loss need as signals
  needs_reference: bool
  chosen: dict[str, Any]  # fields that may be "auto" -> their values in this run

  @property
  def sampler_mesh(self) -> Mesh:
    """The devices that sample: those of `mesh`, or dedicated ones."""
    return sampler_mesh(self.mesh, self.settings.sampling.devices)

  def policy_params(self, trained: PyTree) -> PyTree:
    """The parameters of the policy, from the trained ones; with adapters, a merged copy."""
    base = self.base()
    split = jax.tree.map(lambda x: x.sharding, base)  # else every device would get a whole copy
    merge = jax.jit(self.part.merge, out_shardings=split)
    return trained if self.settings.lora is None else merge(base, trained)

  def acting(self, trained: PyTree) -> PyTree:
    """Parameters for the sampler and the scorer, without a copy: the adapters stand beside the
    kernels of the base."""
    return self.part.with_adapters(self.base(), trained)


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
    rows=_rows_at_once(s, mesh),
    length=s.train.max_prompt_tokens + s.train.max_tokens,
    needs=recipe.loss.needs,
  )
  if s.sampling.replay and not policy.config.experts:
    raise ValueError("sampling.replay replays experts, of which the policy has none.")
  fields = tuple(name for name in recipe.loss.needs if name in SCORE_FIELDS)
  fields += balance.fields(policy, s.train.balance)
  score = _make_score(s, policy, mesh, needs=fields, keep=not s.train.head_remat)
  optimizer = optimizers.from_config(s.built["optimizer"])
  recipe = recipe._replace(loss=balance.balanced(recipe.loss, s.train.balance))
  signals = recipes.signals(recipe)
  measured = tuple(name for name in SCORE_FIELDS if name in signals)
  replays = (balance.BALANCE,) if s.sampling.replay else ()  # the pass that takes given experts
  start = partial(_first_state, s, recipe, optimizer)
  part = trainable(source, s.lora)
  state = lay_out(mesh, optimizer, start, part.init, part.axes)
  base, frozen = _frozen(s, source, mesh)
  if devices is None:
    check_state(mesh, (frozen, state.abstract))
  step = partial(
    update,
    recipe=recipe,
    weigh=weigh,
    optimizer=optimizer,
    micro_batches=s.train.micro_batches,
    updates=s.train.updates,
    unstack_for_grad=policy.unstack_for_grad if s.lora is None else lambda adapters: adapters,
  )
  step = partial(step, score=score) if s.lora is None else partial(learn, part, score, step)
  update_, ready = _compiled(s, mesh, policy, step, state, base, frozen)
  whole, rows = replicated(mesh), batch_sharding(mesh)
  return Learner(
    settings=s,
    mesh=mesh,
    policy=policy,
    recipe=recipe,
    optimizer=optimizer,
    shardings=state.shardings,
    abstract=dataclasses.replace(state.abstract, pending=_pending(s, mesh)),
    part=part,
    base=base,
    frozen=frozen,
    initial=partial(_initial, s, source, part, state, start),
    shape=jax.jit(partial(shape, recipe, weigh=weigh), out_shardings=(rows, whole)),
    ready=ready,
    update=update_,
    measure=make_measure(s, policy, mesh, needs=(*measured, *replays)),
    measured=measured,
    needs_reference="ref" in wanted or REF in signals,
    chosen=chosen,
  )


def _first_state(s: Settings, recipe: Recipe[Stage], optimizer, params: PyTree) -> TrainState:
  """The state of a run that begins with these trained parameters."""
  passed = jnp.zeros((s.train.window, 2), jnp.int32) if s.train.window else None
  return first_state(params, optimizer, recipes.init(recipe), counted="prompts", passed=passed)


def _initial(s: Settings, source: Source, part: Trainable, state: Layout, start) -> TrainState:
  """The state before the first step, on its devices."""
  key = jax.random.key(s.seed)
  if s.lora is None:
    params = source.params(key, state.params)
  else:
    params = jax.jit(part.init, out_shardings=state.params)(key)
  return jax.jit(start, out_shardings=state.shardings)(params)


def _pending(s: Settings, mesh: Mesh) -> AsSaved | None:
  """Where a checkpoint's batch that is sampled, but not trained on, goes."""

  def sharding(shape: tuple[int, ...]) -> jax.sharding.Sharding:
    cut = shape and shape[0] % batch_shards(mesh) == 0
    return batch_sharding(mesh) if cut else replicated(mesh)

  return AsSaved(sharding) if s.train.steps_ahead else None


def _compiled(
  s: Settings, mesh: Mesh, policy: Policy, step, state: Layout, base, frozen
) -> tuple[Callable[..., Any], Callable[[Batch], Any]]:
  """The fields `update` and `ready` of a `Learner`, of a step that is not compiled yet."""
  # Donation lets the new state take the memory of the old one: a second copy of parameters and
  # moments would not fit. The caller must copy all that it still needs of the old state.
  compiled = partial(
    jax.jit,
    out_shardings=(state.shardings, replicated(mesh)),
    static_argnames="sizes",
    compiler_options=compiler.options(mesh) or None,
  )
  update_: Callable[..., Any]
  if s.lora is None:
    update_ = compiled(step, donate_argnums=0)
  else:
    update_ = OnBase(compiled(step, donate_argnums=1), base, frozen)
  if s.train.pack is None:
    return update_, lambda batch: batch
  packed = PackedUpdate(update_, mesh, policy, _cut(s, mesh) | {"parts": s.train.updates})
  return packed, packed.ready


def make_measure(
  s: Settings, policy: Policy, mesh: Mesh, *, needs: tuple[str, ...] = ()
) -> Callable[..., Any]:
  """params, rollouts -> TokenScores of the whole batch, without a gradient. `s`: without "auto"."""
  score = _make_score(s, policy, mesh, needs=needs)
  measure = jax.jit(
    partial(score_all, score, pieces=s.train.micro_batches),
    out_shardings=batch_sharding(mesh),
    static_argnames="sizes",
  )
  return measure if s.train.pack is None else PackedScore(measure, mesh, policy, _cut(s, mesh))


def other_policy(s: Settings, policy: Policy, mesh: Mesh) -> Policy:
  """Another policy than the run's, with the attention that suits the run's rows and devices."""
  length = s.train.max_prompt_tokens + s.train.max_tokens
  return automatic.resolve(policy, s, mesh, rows=_rows_at_once(s, mesh), length=length)[0]


def _cut(s: Settings, mesh: Mesh) -> dict[str, int]:
  """How a batch is cut into packed rows: the arguments of `arrange` or of `deal`."""
  pack = _pack(s)
  assert pack is not None
  cut = {"width": pack, "shards": batch_shards(mesh)}
  if s.train.micro_tokens is None:
    return cut | {"pieces": s.train.micro_batches}
  return cut | {"rows": s.train.micro_tokens // pack}


def _rows_at_once(s: Settings, mesh: Mesh) -> int:
  """The longest rollouts that a device takes at once."""
  if s.train.micro_tokens is not None:
    return s.train.micro_tokens // (s.train.max_prompt_tokens + s.train.max_tokens)
  pieces = s.train.micro_batches * s.train.updates
  return rows_at_once(mesh, s.train.prompts * s.train.group_size, pieces)


def _pack(s: Settings) -> int | None:
  """The width of packed rows, in settings without "auto"."""
  assert s.train.pack != automatic.AUTO
  return s.train.pack


def _make_score(s: Settings, policy: Policy, mesh: Mesh, **options: Any) -> Score:
  """The scorer of padded rows, of packed ones, or of pieces of train.micro_tokens."""
  pack = _pack(s)
  options |= {"temperature": s.sampling.temperature, "mesh": mesh}
  if s.train.micro_tokens is None:
    return make_scorer(policy, pack=pack, **options)
  assert pack is not None  # settings say so
  return PieceScorer(make_scorer(policy, rows=True, **options), pack, mesh)


def _frozen(s: Settings, source: Source, mesh: Mesh) -> tuple[Callable[[], PyTree], PyTree]:
  """The parameters below the adapters: a function that loads them once, and abstract arrays."""
  if s.lora is None:
    return tuple, ()
  shapes = jax.eval_shape(source.init, jax.random.key(0))
  split = param_shardings(mesh, source.policy.axes, shapes)
  load = cache(lambda: source.params(jax.random.key(s.seed), split))
  return load, abstract(shapes, split)


def _training_mesh(s: Settings, devices) -> Mesh:
  """The devices that train: all but the dedicated ones. Batches must divide over both."""
  check_sampling_devices(s.sampling.devices)
  available = first_devices(s.mesh.devices, devices)
  count = len(available) - s.sampling.devices
  if count < 1:
    raise ValueError(
      f"sampling.devices={s.sampling.devices} of {len(available)}: none is left to train."
    )
  mesh = make_mesh(**s.mesh.axes, devices=available[:count])
  if s.train.micro_tokens is None:
    check_divides(mesh, prompts=s.train.prompts, pieces=s.train.micro_batches * s.train.updates)
  units = {"mesh.data * mesh.fsdp": batch_shards(mesh), "train.updates": s.train.updates}
  for field, unit in units.items():  # pieces of train.micro_tokens need no more than this
    if s.train.prompts % unit:
      raise ValueError(
        f"train.prompts must be a multiple of {field} = {unit}, got {s.train.prompts}."
      )
  if s.train.micro_tokens is not None and mesh.shape["sequence"] > 1:
    raise ValueError(
      f"train.micro_tokens={s.train.micro_tokens} needs mesh.sequence=1, got "
      f"{mesh.shape['sequence']}: use train.micro_batches with a sequence axis."
    )
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
  if missing := set(recipe.loss.needs) - {*SCORE_FIELDS, "group", "ref", TEACHER}:
    raise ValueError(f"the loss needs {sorted(missing)}, which nothing here supplies.")
  if (TEACHER in recipe.loss.needs) != (s.teachers is not None):
    raise ValueError(
      "loss.distill needs a section teachers, and nothing else reads one: set both, or neither."
    )
  if s.sampling.replay and s.revise is not None:
    raise ValueError(
      "sampling.replay needs responses as they were sampled: it does not go with a section revise."
    )
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

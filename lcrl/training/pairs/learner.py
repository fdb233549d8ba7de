"""The learner of a run on pairs: the policy, its training state, and the compiled programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lcrl.data import batches
from lcrl.mesh import (
  batch_sharding,
  batch_shards,
  check_divides,
  first_devices,
  local_rows,
  make_mesh,
  param_shardings,
  replicated,
  sampler_mesh,
  to_global,
)
from lcrl.policies import Policy, lora, sources
from lcrl.policies.hf import Source
from lcrl.registry import build
from lcrl.training import automatic, balance, optimizers, strengths
from lcrl.training.automatic import rows_at_once
from lcrl.training.layout import Layout, abstract, first_state, lay_out
from lcrl.training.memory import check_rows, check_state
from lcrl.training.packed import PackedScore, PackedUpdate
from lcrl.training.packing import Sizes, arrange, largest_sizes, rounded, used_lengths
from lcrl.training.pairs import metrics
from lcrl.training.pairs.losses import named_loss
from lcrl.training.rl.learner import SCORE_FIELDS
from lcrl.training.scorer import make_scorer
from lcrl.training.step import score_all, update
from lcrl.training.trainable import OnBase, learn, trainable
from lcrl.types import PairBatch, Pairs, Stage, TrainState

PyTree = Any
S = TypeVar("S")
jitted_arrange = jax.jit(arrange, static_argnames=("width", "shards", "pieces"))


class Slots(NamedTuple, Generic[S]):
  """The recipe of a run on pairs: a stage, or its state."""

  loss: S


class ModelHooks(NamedTuple):
  """The functions in which kinds of runs on pairs differ; the defaults are those of a policy."""

  source: Callable[[Source], Source] = lambda source: source
  adapters: Callable[..., Any] = lora.adapters
  merge: Callable[..., PyTree] = lora.merge
  with_adapters: Callable[..., PyTree] = lora.with_adapters
  make_scorer: Callable[..., Callable] = make_scorer
  update_measure: Callable[[Stage], Callable] = metrics.update_measure
  pair_metrics: Callable[..., dict[str, jax.Array]] = metrics.pair_metrics


ACTING = ModelHooks()


@dataclasses.dataclass(frozen=True, eq=False)
class PairLearner:
  """The policy on its mesh. `base` is frozen: () or, with adapters, the params."""

  settings: Any  # `pairs.settings.Settings`, or another kind's with the fields that the run reads
  mesh: Mesh
  policy: Policy
  stage: Stage
  shardings: TrainState
  abstract: TrainState
  base: Callable[[], PyTree]
  frozen: PyTree  # the same, abstract
  start: Callable[[], PyTree]  # the params of the policy before the first step
  initial: Callable[[], TrainState]
  merge: Callable[[PyTree, PyTree], PyTree]  # base, trained -> params of the policy
  derive: Callable[..., PairBatch]  # pairs, reference's log-probs, step -> batch of the loss
  learn: Any  # base, state, batch -> state, metrics, jitted; the state is donated
  make_update: Callable[[PyTree], Callable[..., Any]]  # base -> (state, batch -> state, metrics)
  score: Callable[..., Any]  # params of the policy, pairs -> the scores of `make_scorer`
  pair_metrics: Callable[..., dict[str, jax.Array]]  # scores, batch -> on every device
  padding: Callable[[Pairs], float]  # share of the positions that hold no token
  chosen: dict[str, Any]  # fields that may be "auto" -> their values in this run

  @property
  def sampler_mesh(self) -> Mesh:
    """The devices that sample: all of them."""
    return sampler_mesh(self.mesh, 0)

  def policy_params(self, trained: PyTree) -> PyTree:
    """The parameters of the policy, from the trained ones."""
    return self.merge(self.base(), trained)

  def place(self, pairs: Pairs) -> Pairs:
    """Pairs of the whole batch, numpy on every process -> global arrays."""
    local = lambda x: np.asarray(x)[local_rows(self.mesh, len(x))]
    return to_global(self.mesh, jax.tree.map(local, pairs))


def build_learner(settings: Any, *, devices=None, hooks: ModelHooks = ACTING) -> PairLearner:
  """Builds the part of a run that needs no data: state and compiled programs.

  Args:
    settings: the settings of the run.
    devices: the devices of the mesh; None: all devices.
    hooks: the functions of the kind of run.
  """
  s = settings
  stage, weigh = named_loss(s.run, s.built)
  mesh = make_mesh(**s.mesh.axes, devices=first_devices(s.mesh.devices, devices))
  source = build(sources, s.built["policy"], field="policy", gives=Source)
  size, pieces = s.built["batches"]["size"], s.train.micro_batches
  policy, s, chosen = automatic.resolve(
    source.policy, s, mesh, rows=2 * rows_at_once(mesh, size, pieces), length=window_of(s)
  )
  source = hooks.source(source._replace(policy=policy))
  policy = source.policy
  optimizer = optimizers.from_config(s.built["optimizer"])
  key, whole = jax.random.key(s.seed), replicated(mesh)
  shapes = jax.eval_shape(source.init, key)
  split = param_shardings(mesh, policy.axes, shapes)
  frozen = () if s.lora is None else abstract(shapes, split)
  start = lambda: source.params(key, split)
  part = trainable(source, s.lora, hooks)

  def begin(trained) -> TrainState:
    return first_state(trained, optimizer, Slots(stage.init()), counted="pairs")

  state = lay_out(mesh, optimizer, begin, part.init, part.axes)

  def initial() -> TrainState:
    first = start() if s.lora is None else jax.jit(part.init, out_shardings=state.params)(key)
    return jax.jit(begin, out_shardings=state.shardings)(first)

  if devices is None:
    check_state(mesh, (frozen, state.abstract))
  fields = tuple(name for name in stage.needs if name in SCORE_FIELDS)
  weight = getattr(s.train, "balance", 0.0)
  if hooks.make_scorer is make_scorer and not getattr(s.train, "strengths", False):
    fields += balance.fields(policy, weight)
  elif weight:
    raise ValueError(f"train.balance={weight} does not go with train.strengths.")
  options = dict(needs=fields, mesh=mesh, pack=s.train.pack)
  score = learned_score = hooks.make_scorer(policy, **options)
  if getattr(s.train, "strengths", False):
    learned_score = strengths.make_scorer(hooks.make_scorer, policy, **options)
  step = partial(
    update,
    recipe=Slots(balance.balanced(stage, weight)),
    weigh=weigh,
    optimizer=optimizer,
    micro_batches=s.train.micro_batches,
    measure=hooks.update_measure(stage),
  )
  return PairLearner(
    settings=s,
    mesh=mesh,
    policy=policy,
    stage=stage,
    shardings=state.shardings,
    abstract=state.abstract,
    base=tuple if s.lora is None else start,
    start=start,
    initial=initial,
    merge=part.merge if s.lora is None else jax.jit(part.merge, out_shardings=split),
    derive=jax.jit(partial(derive, weigh, key), out_shardings=batch_sharding(mesh)),
    pair_metrics=jax.jit(partial(hooks.pair_metrics, stage), out_shardings=whole),
    chosen=chosen,
    frozen=frozen,
    **programs(
      s.train, mesh, policy, score, partial(learn, part, learned_score, step), state, frozen
    ),
  )


def programs(
  train: Any, mesh: Mesh, policy: Policy, score, learn, state: Layout, frozen: PyTree
) -> dict[str, Any]:
  """The fields of a `PairLearner` that depend on whether rows are packed."""
  pieces, shardings = train.micro_batches, (state.shardings, replicated(mesh))
  learn = jax.jit(learn, donate_argnums=1, out_shardings=shardings, static_argnames="sizes")
  on_base = lambda base: OnBase(learn, lambda: base, frozen)
  score = jax.jit(
    partial(score_all, score, pieces=pieces),
    out_shardings=batch_sharding(mesh),
    static_argnames="sizes",
  )
  if train.pack is None:
    return {"learn": learn, "make_update": on_base, "score": score, "padding": batches.padding}
  cut = {"width": train.pack, "shards": batch_shards(mesh), "pieces": pieces}
  return {
    "learn": learn,
    "make_update": lambda base: PackedUpdate(on_base(base), mesh, policy, cut),
    "score": PackedScore(score, mesh, policy, cut),
    "padding": partial(packed_padding, **cut),
  }


def derive(weigh, key: jax.Array, pairs: Pairs, ref, step) -> PairBatch:
  """Adds to pairs all that depends on the whole batch, before it is cut into pieces."""
  valid, key = pairs.valid, jax.random.fold_in(key, step)
  return PairBatch(
    pairs,
    weights=valid / jnp.maximum(valid.sum(), 1).astype(jnp.float32),
    token_weights=weigh(pairs.mask[:, 0], valid),
    keys=jax.vmap(partial(jax.random.fold_in, key))(pairs.pair_ids),
    ref_log_probs=ref,
  )


def window_of(settings: Any) -> int:
  """Tokens of an answer and its prompt, at most."""
  data = settings.built.get("data")
  return settings.window if data is None else data["window"]


def check_batches(model: PairLearner) -> None:
  """Raises ValueError unless a batch can be cut over the devices, and they can hold it."""
  s, mesh = model.settings, model.mesh
  check_rows(mesh, s.built["batches"]["size"], window_of(s), "batches.size")
  if "prompts" in vars(s.train):
    longest = s.train.max_prompt_tokens + s.train.max_tokens
    check_rows(mesh, s.train.prompts * s.eval.samples, longest, "train.prompts * eval.samples")
  check_divides(
    model.mesh,
    prompts=model.settings.built["batches"]["size"],
    pieces=model.settings.train.micro_batches,
    field="batches.size",
    of="train.micro_batches",
  )


def packed_padding(pairs: Pairs, *, width: int, **cut: Any) -> float:
  """Share of the positions of packed rows that hold no token."""
  used = used_lengths(pairs.mask).sum()
  sizes = jitted_arrange(pairs.mask, width=width, **cut)[2]
  largest = largest_sizes(pairs.mask.shape, width=width, **cut)
  rows = rounded(Sizes(*np.asarray(sizes).tolist()), largest).rows
  return float(1 - used / (rows * width * cut["shards"] * cut["pieces"]))

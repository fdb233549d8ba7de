"""From a config to everything that is compiled of a run on pairs."""

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
  local_rows,
  make_mesh,
  optimizer_shardings,
  param_shardings,
  replicated,
  to_global,
)
from lcrl.named import build
from lcrl.policies import Policy, lora, sources
from lcrl.policies.hf import Source
from lcrl.training import optimizers
from lcrl.training.model import SCORE_FIELDS
from lcrl.training.packed import PackedScore, PackedUpdate
from lcrl.training.packing import Sizes, arrange, rounded, used_lengths
from lcrl.training.pairs import measures
from lcrl.training.pairs.losses import named_loss
from lcrl.training.pairs.settings import Settings
from lcrl.training.scorer import make_scorer
from lcrl.training.step import score_all, update
from lcrl.types import PairBatch, Pairs, Stage, TrainState

PyTree = Any
S = TypeVar("S")


class Slots(NamedTuple, Generic[S]):
  """The recipe of a run on pairs: a stage, or its state."""

  loss: S


class Form(NamedTuple):
  """What kinds of runs on pairs make of a policy; the defaults are those of a policy that acts."""

  source: Callable[[Source], Source] = lambda source: source
  adapters: Callable[..., Any] = lora.adapters
  merge: Callable[..., PyTree] = lora.merge
  beside: Callable[..., PyTree] = lora.beside
  make_scorer: Callable[..., Callable] = make_scorer
  update_measure: Callable[[Stage], Callable] = measures.update_measure
  say: Callable[..., dict[str, jax.Array]] = measures.say


ACTING = Form()


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
  """The policy on its mesh. `base` is what does not train: () or, under adapters, the params."""

  settings: Settings
  mesh: Mesh
  policy: Policy
  stage: Stage
  shardings: TrainState
  abstract: TrainState
  base: Callable[[], PyTree]
  start: Callable[[], PyTree]  # the params that the policy has before the first step
  initial: Callable[[], TrainState]
  whole: Callable[[PyTree, PyTree], PyTree]  # base, trained -> params of the policy
  derive: Callable[..., PairBatch]  # pairs, reference's log-probs, step -> what the loss sees
  learn: Any  # base, state, batch -> state, metrics, jitted; the state is donated
  learner: Callable[[PyTree], Callable[..., Any]]  # base -> (state, batch -> state, metrics)
  score: Callable[..., Any]  # params of the policy, pairs -> what `make_scorer`'s function gives
  say: Callable[..., dict[str, jax.Array]]  # scores, batch -> `measures.say`, on every device
  padding: Callable[[Pairs], float]  # share of the positions that the model reads for nothing

  def policy_params(self, trained: PyTree) -> PyTree:
    """What the policy acts with, of what trains."""
    return self.whole(self.base(), trained)

  def place(self, pairs: Pairs) -> Pairs:
    """Pairs of the whole batch, numpy on every process -> global arrays."""
    mine = lambda x: np.asarray(x)[local_rows(self.mesh, len(x))]
    return to_global(self.mesh, jax.tree.map(mine, pairs))


def build_model(settings: Settings, *, devices=None, form: Form = ACTING) -> Model:
  """The part of a run that needs no data: everything that is compiled.

  Args:
    settings: of the run.
    devices: of the mesh; None: all here.
    form: of the kind of run.
  """
  s = settings
  stage, weigh = named_loss(s.run, s.built)
  mesh = make_mesh(**dataclasses.asdict(s.mesh), devices=devices)
  source = form.source(build(sources, s.built["policy"], field="policy"))
  policy = source.policy
  optimizer = build(optimizers, s.built["optimizer"], field="optimizer")
  fields = tuple(name for name in stage.needs if name in SCORE_FIELDS)
  score = form.make_scorer(policy, needs=fields, mesh=mesh, pack=s.train.pack)
  pieces = s.train.micro_batches
  key = jax.random.key(s.seed)

  split = param_shardings(mesh, policy.axes, jax.eval_shape(policy.init, key))
  start = lambda: source.params(key, split)
  if s.lora is None:
    fresh, axes = policy.init, policy.axes
    whole_of = beside = lambda base, trained: trained
  else:
    fresh, axes = form.adapters(policy, rank=s.lora.rank, targets=s.lora.targets)
    whole_of, beside = (partial(f, alpha=s.lora.alpha) for f in (form.merge, form.beside))

  def begin(trained) -> TrainState:
    return TrainState(
      step=jnp.int32(0),
      params=trained,
      opt_state=optimizer.init(trained),
      recipe=Slots(stage.init()),
      position=jnp.int32(0),
      counters={"pairs": jnp.int32(0), "tokens": jnp.float32(0.0)},
    )

  trained = jax.eval_shape(fresh, key)
  whole, rows = replicated(mesh), batch_sharding(mesh)
  laid = param_shardings(mesh, axes, trained)
  shapes = jax.eval_shape(begin, trained)
  shardings = dataclasses.replace(
    jax.tree.map(lambda _: whole, shapes),
    params=laid,
    opt_state=optimizer_shardings(mesh, optimizer, trained, laid),
  )
  abstract = jax.tree.map(
    lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, shardings
  )

  def initial() -> TrainState:
    first = start() if s.lora is None else jax.jit(fresh, out_shardings=laid)(key)
    return jax.jit(begin, out_shardings=shardings)(first)

  def learn(base, state: TrainState, batch: PairBatch, **sizes):
    own = lambda trained, rows, **sizes: score(beside(base, trained), rows, **sizes)
    return update(
      state,
      batch,
      score=own,
      recipe=Slots(stage),
      weigh=weigh,
      optimizer=optimizer,
      micro_batches=pieces,
      measure=form.update_measure(stage),
      **sizes,
    )

  learn_: Any = jax.jit(
    learn, donate_argnums=1, out_shardings=(shardings, whole), static_argnames="sizes"
  )
  score_: Any = jax.jit(
    partial(score_all, score, pieces=pieces), out_shardings=rows, static_argnames="sizes"
  )
  learner: Callable[[PyTree], Any] = partial(partial, learn_)
  padding: Callable[[Pairs], float] = batches.padding
  if s.train.pack is not None:
    cut = {"width": s.train.pack, "shards": batch_shards(mesh), "pieces": pieces}
    learner = lambda base: PackedUpdate(partial(learn_, base), mesh, policy, cut)
    score_ = PackedScore(score_, mesh, policy, cut)
    padding = lambda pairs: packed_padding(pairs, **cut)
  return Model(
    settings=s,
    mesh=mesh,
    policy=policy,
    stage=stage,
    shardings=shardings,
    abstract=abstract,
    base=tuple if s.lora is None else start,
    start=start,
    initial=initial,
    whole=whole_of if s.lora is None else jax.jit(whole_of, out_shardings=split),
    derive=jax.jit(partial(derive, weigh, key), out_shardings=rows),
    learn=learn_,
    learner=learner,
    score=score_,
    say=jax.jit(partial(form.say, stage), out_shardings=whole),
    padding=padding,
  )


def derive(weigh, key: jax.Array, pairs: Pairs, ref, step) -> PairBatch:
  """Pairs with what depends on the whole batch, before it is cut into pieces."""
  valid, key = pairs.valid, jax.random.fold_in(key, step)
  return PairBatch(
    pairs,
    weights=valid / jnp.maximum(valid.sum(), 1).astype(jnp.float32),
    token_weights=weigh(pairs.mask[:, 0], valid),
    keys=jax.vmap(partial(jax.random.fold_in, key))(pairs.pair_ids),
    ref_log_probs=ref,
  )


def packed_padding(pairs: Pairs, *, width: int, **cut: Any) -> float:
  """Share of the positions of packed rows that hold no token."""
  used = used_lengths(pairs.mask).sum()
  rows = rounded(Sizes(*np.asarray(arrange(pairs.mask, width=width, **cut)[2]).tolist())).rows
  return float(1 - used / (rows * width * cut["shards"] * cut["pieces"]))

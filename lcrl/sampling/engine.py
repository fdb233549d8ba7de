"""Prompts in, rollouts out: the sampler with its checks, its buckets and its layout on a mesh."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl import policies
from lcrl.data.rows import Rows
from lcrl.mesh import BATCH, batch_sharding, batch_shards, param_shardings, replicated
from lcrl.policies.triton_decode import refusal
from lcrl.sampling.controls import Control
from lcrl.sampling.core import PyTree, Samples, row_keys, sample
from lcrl.types import Budget, Outcome, Rollouts

SHORTEST = 16  # the smallest bucket; the others are its doubles
# Products of few rows on NVIDIA: 5.1 us by cuBLAS, 6.6 us by XLA in Triton (135 M, on an H100).
CUBLAS = {"xla_gpu_enable_triton_gemm": False}


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
  """Samples rollouts. Nothing in it changes; `make_engine` explains the fields."""

  policy: policies.Policy
  max_tokens: int
  end_ids: tuple[int, ...]
  pad_id: int
  temperature: float
  control: Control | None
  slots: int | None
  cache_dtype: str | None
  mesh: Mesh | None
  compiler: tuple[tuple[str, Any], ...] = ()
  source: Mesh | None = None

  def prepared(self, params: PyTree) -> PyTree:
    """The sampler's own copy of the policy's parameters, for `generate` in their place: an update
    may use their memory again while it samples. Of a copy, the copy itself."""
    if isinstance(params["layers"], tuple):
      return params
    copy = _prepare(self, params)
    if self.source is None or self.mesh is None:
      return copy
    return jax.device_put(copy, _layout(self.policy, self.mesh, copy))

  def generate(self, params: PyTree, rows: Rows, budget: Budget, key: jax.Array) -> Rollouts:
    """One response to every row, not verified yet: every answer counts as wrong.

    Cache and rows have lengths from a short list (16, 32, 64, ... and the limits), so that a run
    compiles once for each pair that it meets.

    Args:
      params: of the policy, stacked, wherever they lie; or `prepared`.
      rows: B prompts, G rollouts each; numpy, or global arrays on the mesh.
      budget: its caps say where rows stop.
      key: of this step; `rows.index` is folded in.
    Returns: Rollouts with T = P + N, the buckets of the longest prompt and of the largest cap.
    """
    facts = jax.tree.map(int, _facts(self, rows, _caps(rows, budget)))
    self._check(rows, budget, facts)
    return _program(self.compiler)(
      self,
      self.prepared(params),
      rows,
      budget,
      key,
      prompt=_bucket(facts["longest"], rows.tokens.shape[-1]),
      new=_bucket(facts["most"], self.max_tokens),
      share=bool(facts["shared"]) and (self.slots is None or self.slots >= rows.lengths.shape[1]),
    )

  def _check(self, rows: Rows, budget: Budget, facts: dict[str, int]) -> None:
    if rows.lengths.shape != budget.cap.shape:
      raise ValueError(f"rows are {rows.lengths.shape} and budgets {budget.cap.shape}.")
    if facts["least"] < 1 or facts["most"] > self.max_tokens:
      wrong = facts["least"] if facts["least"] < 1 else facts["most"]
      raise ValueError(
        f"budget.cap must be from 1 to max_tokens={self.max_tokens}, got {wrong} when forced "
        "tokens that count are taken off."
      )
    if facts["shortest"] < 1:
      raise ValueError("a prompt of 0 tokens: there is nothing to continue.")
    if self.mesh is not None and rows.tokens.shape[0] % batch_shards(self.mesh):
      raise ValueError(
        f"{rows.tokens.shape[0]} prompts cannot be split over {batch_shards(self.mesh)} "
        "data * fsdp shards."
      )


def make_engine(
  policy: policies.Policy,
  *,
  max_tokens: int,
  end_ids: tuple[int, ...],
  pad_id: int,
  temperature: float = 1.0,
  control: Control | None = None,
  slots: int | None = None,
  dtype: str | None = None,
  cache_dtype: str | None = None,
  decoding: str | None = None,
  mesh: Mesh | None = None,
  compiler: Mapping[str, Any] | None = None,
  source: Mesh | None = None,
) -> Engine:
  """An engine for one policy.

  Args:
    policy: the model that acts.
    max_tokens: no cap may be larger.
    end_ids: the tokens that end a response.
    pad_id: stands behind responses.
    temperature: at least 0; 0 takes the most likely token.
    control: what else changes the distribution (`lcrl.sampling.controls`).
    slots: rows that decode at once on a data shard while others wait; None: all.
    dtype: of the sampler's copy of the parameters; None: the policy's.
    cache_dtype: of keys and values, "int8" with a scale each; None: as `dtype`.
    decoding: a name in `policies.decoding.ATTEND`; None: the fastest that this mesh can run.
    mesh: rows are split over data and fsdp, every such shard samples at its own pace; parameters
      are gathered over fsdp and stay split over tensor. None: no mesh.
    compiler: options of XLA for what samples; None: the fastest.
    source: other devices, where parameters lie and are cast before they travel; None: `mesh`.
  """
  if max_tokens < 1:
    raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")
  if temperature < 0:
    raise ValueError(f"temperature must be at least 0, got {temperature}.")
  if not end_ids:
    raise ValueError("end_ids is empty: no response would ever end.")
  config = dataclasses.replace(policy.config, dtype=dtype or policy.config.dtype)
  config = dataclasses.replace(config, decoding=decoding or _fastest(config, mesh))
  if compiler is None:
    compiler = CUBLAS if config.decoding == "triton" and _nvidia(mesh) else {}
  if config != policy.config:
    policy = policies.make(config)
  return Engine(
    policy,
    max_tokens,
    tuple(end_ids),
    pad_id,
    temperature,
    control,
    slots,
    cache_dtype,
    mesh,
    tuple(sorted(compiler.items())),
    source,
  )


def _fastest(config: policies.Config, mesh: Mesh | None) -> str:
  """The kernel for NVIDIA where it can serve the model; it runs on whole heads only."""
  whole = mesh is None or mesh.shape["tensor"] == 1
  return "triton" if _nvidia(mesh) and whole and refusal(config) is None else "xla"


def _nvidia(mesh: Mesh | None) -> bool:
  device = jax.devices()[0] if mesh is None else mesh.devices.flat[0]
  return "NVIDIA" in device.device_kind


def _caps(rows: Rows, budget: Budget):
  """[B, G], tokens that may be sampled: forced ones that count use up their share of the cap."""
  return budget.cap if rows.counts is None else budget.cap - rows.counts


def _bucket(length: int, limit: int) -> int:
  return min(max(SHORTEST, 1 << (length - 1).bit_length()), limit)


@partial(jax.jit, static_argnums=0)
def _facts(engine: Engine, rows: Rows, cap) -> dict[str, jax.Array]:
  """What the host must know before it picks a program, alike on every process."""
  lengths = jnp.asarray(rows.lengths)
  longest = lengths.max()
  if rows.train_lengths is not None:
    longest = jnp.maximum(longest, rows.train_lengths.max())
  alike = lambda x: (x == x[:, :1]).all()
  facts = {
    "least": cap.min(),
    "most": cap.max(),
    "shortest": lengths.min(),
    "longest": longest,
    "shared": alike(rows.tokens) & alike(lengths),
  }
  return facts if engine.mesh is None else _constrain(facts, replicated(engine.mesh))


@partial(jax.jit, static_argnums=0)
def _prepare(engine: Engine, params: PyTree) -> PyTree:
  """The sampler's copy: its dtype, a tree per layer, split over tensor and nothing else."""
  mesh = engine.source or engine.mesh
  copy = engine.policy.unstack(params)
  return copy if mesh is None else _constrain(copy, _layout(engine.policy, mesh, copy))


def _layout(policy: policies.Policy, mesh: Mesh, copy: PyTree) -> PyTree:
  """Where a copy lies on a mesh."""
  shardings = param_shardings(mesh, policy.copy_axes(copy), copy)
  keep = lambda s: NamedSharding(mesh, P(*(a if a == "tensor" else None for a in s.spec)))
  return jax.tree.map(keep, shardings)


def _run(engine, params, rows, budget, key, *, prompt: int, new: int, share: bool):
  cut = lambda x: x if x is None else jnp.asarray(x)[..., :prompt]
  rows = dataclasses.replace(rows, tokens=cut(rows.tokens), train_tokens=cut(rows.train_tokens))
  run = partial(_sample, engine, new, share)
  if engine.mesh is not None:
    # A queue and a loop for each shard; a tensor axis is left to the compiler.
    split = engine.mesh.shape["tensor"] > 1
    run = jax.shard_map(
      run,
      mesh=engine.mesh,
      in_specs=(P(), P(), BATCH, BATCH, BATCH, BATCH),
      out_specs=BATCH,
      axis_names={"data", "fsdp"} if split else set(engine.mesh.axis_names),
      check_vma=False,
    )
  samples = run(params, key, rows.tokens, rows.lengths, _caps(rows, budget), rows.index)
  rollouts = assemble(rows, budget, samples, pad_id=engine.pad_id)
  return rollouts if engine.mesh is None else _constrain(rollouts, batch_sharding(engine.mesh))


def _sample(engine: Engine, new: int, share: bool, params, key, tokens, lengths, caps, index):
  """Samples of [b, G] rows, every leaf leading with [b, G]."""
  prompts, group = lengths.shape
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  samples = sample(
    engine.policy,
    params,
    *map(flat, (tokens, lengths, caps, row_keys(key, index, group))),
    max_tokens=new,
    end_ids=engine.end_ids,
    temperature=engine.temperature,
    control=engine.control,
    slots=engine.slots,
    group=group if share else 1,
    cache_dtype=engine.cache_dtype,
    growing=engine.policy.config.decoding == "xla",
  )
  return jax.tree.map(lambda x: x.reshape(prompts, group, *x.shape[1:]), samples)


_STATIC: dict[str, Any] = {"static_argnums": 0, "static_argnames": ("prompt", "new", "share")}
_generate = jax.jit(_run, **_STATIC)


@functools.cache
def _program(compiler: tuple[tuple[str, Any], ...]) -> Callable:
  """`_generate` with these options of XLA."""
  return jax.jit(_run, **_STATIC, compiler_options=dict(compiler)) if compiler else _generate


def assemble(rows: Rows, budget: Budget, samples: Samples, *, pad_id: int) -> Rollouts:
  """Rows to train on: prompt and forced prefix, then the response, then padding.

  Args:
    rows: [B, G, P].
    budget: of these rows.
    samples: leaves [B, G] and [B, G, N].
    pad_id: stands behind the responses.
  Returns: Rollouts with T = P + N, all WRONG until verified.
  """
  trained = rows.train_tokens is not None
  tokens = jnp.asarray(rows.train_tokens if trained else rows.tokens)
  starts = jnp.asarray(rows.train_lengths if trained else rows.lengths)[..., None]
  new = samples.tokens.shape[-1]
  at = jax.lax.broadcasted_iota(jnp.int32, (1, 1, tokens.shape[-1] + new), 2)
  prompt, at = at < starts, at - starts
  written = (at >= 0) & (at < samples.lengths[..., None])
  take = lambda x: jnp.take_along_axis(x, jnp.clip(at, 0, new - 1), axis=-1)
  drawn = written & take(samples.mask)
  counts = 0 if rows.counts is None else jnp.asarray(rows.counts)[..., None]
  mask = drawn | (prompt & (at >= -counts))
  tokens = jnp.pad(tokens, ((0, 0), (0, 0), (0, new)))
  tokens = jnp.where(prompt, tokens, jnp.where(written, take(samples.tokens), pad_id))
  shape = starts.shape[:2]
  return Rollouts(
    tokens=tokens,
    mask=mask,
    sampler_log_probs=jnp.where(drawn, take(samples.log_probs), 0.0),
    lengths=mask.sum(axis=-1, dtype=jnp.int32),
    truncated=samples.truncated,
    scores=jnp.zeros(shape, jnp.float32),
    correct=jnp.zeros(shape, bool),
    outcome=jnp.full(shape, Outcome.WRONG, jnp.int8),
    valid=jnp.ones(shape, bool),
    prompt_ids=jnp.asarray(rows.prompt_ids),
    difficulty=jnp.asarray(rows.difficulty),
    budget=jax.tree.map(jnp.asarray, budget),
    signals={},
  )


_constrain = jax.lax.with_sharding_constraint

"""Prompts in, rollouts out: the sampler with its checks, its buckets and its layout on a mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from lcrl import hosts, policies
from lcrl.compiler import nvidia, options
from lcrl.data.rows import Rows
from lcrl.mesh import batch_shards, local_rows, processes, to_global, to_local
from lcrl.policies import tpu_pages
from lcrl.policies.attention import AUTO, FUSED_HEAD_DIMS, Device
from lcrl.policies.decoding import KERNELS
from lcrl.sampling import programs
from lcrl.sampling.controls import Control
from lcrl.sampling.core import PyTree
from lcrl.sampling.jobs import PAGE
from lcrl.types import Budget, Rollouts

SHORTEST = 16  # the smallest bucket; the others are its doubles


@dataclasses.dataclass(frozen=True)
class Engine:
  """Samples rollouts. Nothing in it changes; `make_engine` explains the fields. Engines of equal
  fields share compiled programs."""

  policy: policies.Policy
  max_tokens: int
  end_ids: tuple[int, ...]
  pad_id: int
  temperature: float
  control: Control | None
  slots: int | None
  pages: int | None
  cache_dtype: str | None
  mesh: Mesh | None
  compiler: tuple[tuple[str, Any], ...] = ()
  source: Mesh | None = None
  count_forced: bool = False
  keeps_experts: bool = False

  @property
  def tells_ends(self) -> bool:
    """Whether `truncated` of its rollouts can be relied on (`lcrl.protocols.Sampler`)."""
    return True

  def prepared(self, params: PyTree) -> PyTree:
    """The sampler's own copy of the policy's parameters, which `generate` takes in their place. An
    update may then reuse the memory of the parameters during sampling. Of a copy, the copy."""
    if isinstance(params["layers"], tuple):
      return params
    copy = programs.prepare(self, params)
    if self.source is None or self.mesh is None:
      return copy
    return jax.device_put(copy, programs.layout(self.policy, self.mesh, copy))

  def generate(self, params: PyTree, rows: Rows, budget: Budget, key: jax.Array) -> Rollouts:
    """One response to every row, not verified yet: every answer counts as wrong.

    Cache and rows have lengths from a short list (16, 32, 64, ... and the limits), so that a run
    compiles once for each pair that it meets.

    Args:
      params: of the policy, stacked, wherever they lie; or `prepared`.
      rows: B prompts, G rollouts each: global arrays on the mesh, or numpy with the rows of this
        process (`lcrl.mesh.local_rows`).
      budget: its caps say where rows stop.
      key: of this step; `rows.index` is folded in.
    Returns: Rollouts with T = P + N, the buckets of the longest prompt and of the largest cap.
    """
    run = programs.compiled(programs.generate, self.compiler)
    params = params if self.source is None else self.prepared(params)
    bucket = self._bucket(rows, budget)
    return run(self, params, *self._on_devices(rows, budget), key, bucket)

  def stream(
    self, params: PyTree, rows: Rows, budget: Budget, key: jax.Array
  ) -> Iterator[programs.Piece]:
    """What `generate` gives, several times on the way: rollouts and which of them are finished.

    The device goes on while the host reads. Where a program is dispatched without waiting for its
    end, all are before the first is read.

    Args: those of `generate`.
    Yields: Rollouts as they are when a share of the rows is finished, and [B, G] bool which are.
      The last ones are all finished, and equal those of `generate`; with slots, the use of the pool
      of pages stands beside them.
    """
    bucket = self._bucket(rows, budget)
    params, placed = self.prepared(params), self._on_devices(rows, budget)
    return programs.stream(self, params, *placed, key, bucket)

  @property
  def growing(self) -> bool:
    """Whether the cache of the responses grows: where all of it is read and nobody waits."""
    return self.slots is None and KERNELS[self.policy.config.decoding].reads_all_rows_alike

  def _on_devices(self, rows: Rows, budget: Budget) -> tuple[Rows, Budget]:
    """Rows and budget on the devices."""
    if isinstance(rows.tokens, jax.Array):
      return rows, budget
    put = jax.device_put if self.mesh is None else partial(to_global, self.mesh)
    return put((rows, budget))

  def _bucket(self, rows: Rows, budget: Budget) -> programs.Bucket:
    """Checks the input, and gives the sizes that programs are compiled for. The hosts read them off
    numpy arrays and exchange them without waiting for the devices."""
    limits, shards = _limits(*jax.tree.map(_on_host, (rows, budget))), 1
    if self.mesh is not None:
      limits = _agreed(hosts.gather("lengths", limits, processes(self.mesh)))
      shards = batch_shards(self.mesh)
      if not isinstance(rows.tokens, jax.Array):
        shards = local_rows(self.mesh, shards).size  # those of this process
    if rows.lengths.shape != budget.cap.shape:
      raise ValueError(f"rows are {rows.lengths.shape} and budgets {budget.cap.shape}.")
    if limits.least_cap < 1 or limits.most_cap > self.max_tokens:
      wrong = limits.least_cap if limits.least_cap < 1 else limits.most_cap
      raise ValueError(
        f"budget.cap must be from 1 to max_tokens={self.max_tokens}, got {wrong} when forced "
        "tokens that count are taken off."
      )
    if limits.shortest_prompt < 1:
      raise ValueError("a prompt of 0 tokens: there is nothing to continue.")
    if rows.tokens.shape[0] % shards:
      raise ValueError(
        f"{rows.tokens.shape[0]} prompts cannot be split over {shards} data * fsdp shards."
      )
    fits = self.slots is None or self.slots >= rows.lengths.shape[1]  # a group into the slots
    return programs.Bucket(
      prompt=_bucket(max(limits.longest_prompt, limits.longest_trained), rows.tokens.shape[-1]),
      new=_bucket(limits.most_cap, self.max_tokens),
      share=bool(limits.groups_alike) and fits,
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
  cache_gib: float | None = None,
  dtype: str | None = None,
  cache_dtype: str | None = None,
  decoding: str | None = None,
  mesh: Mesh | None = None,
  compiler: Mapping[str, Any] | None = None,
  source: Mesh | None = None,
  count_forced: bool = False,
  keeps_experts: bool = False,
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
    cache_gib: GiB of a device that hold their keys and values; None: as much as `slots` rows of
      full length need. With less, rows may have to start again, with the same random numbers.
    dtype: of the sampler's copy of the parameters; None: the policy's.
    cache_dtype: of keys and values, "int8" with a scale each; None: as `dtype`.
    decoding: a name in `policies.decoding.KERNELS`; None: the fastest that this mesh can run.
    mesh: rows are split over data and fsdp, every such shard samples at its own pace; parameters
      are gathered over fsdp and stay split over tensor. None: no mesh.
    compiler: options of XLA for what samples; None: the fastest.
    source: other devices, where parameters lie and are cast before they travel; None: `mesh`.
    count_forced: lengths count the tokens that a control forces.
    keeps_experts: rollouts have the signal `policies.experts.CHOSEN`.
  """
  if max_tokens < 1:
    raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")
  if temperature < 0:
    raise ValueError(f"temperature must be at least 0, got {temperature}.")
  if not end_ids:
    raise ValueError("end_ids is empty: no response would ever end.")
  if cache_gib is not None and slots is None:
    raise ValueError(
      f"cache_gib={cache_gib} without slots: then no row waits, and all need a cache."
    )
  parts = 1 if mesh is None else mesh.shape["tensor"]
  config = dataclasses.replace(policy.config, dtype=dtype or policy.config.dtype)
  config = _with_kernels(config, mesh, decoding, cache_dtype, slots)
  if config != policy.config:
    policy = policies.make(config)
  if compiler is None:
    # Loops as CUDA graphs were not tried where devices add up what each of them has computed.
    compiler = options(mesh, loops=parts == 1) if KERNELS[config.decoding].nvidia else {}
  return Engine(
    policy,
    max_tokens,
    tuple(end_ids),
    pad_id,
    temperature,
    control,
    slots,
    None if cache_gib is None else pages_in(policy, cache_gib, cache_dtype, mesh),
    cache_dtype,
    mesh,
    tuple(sorted(compiler.items())),
    source,
    count_forced,
    keeps_experts,
  )


def pages_in(policy, gib: float, cache_dtype: str | None, mesh: Mesh | None) -> int:
  """How many pages a device holds in so many GiB. Kernels index keys of a layer with 32 bits."""
  most = 2**31 // (policy.config.kv_heads * PAGE * policy.config.head_dim)
  return min(int(gib / page_gib(policy, cache_dtype, mesh)), most)


def page_gib(policy, cache_dtype: str | None, mesh: Mesh | None) -> float:
  """GiB of a device for a page of keys and values, of all layers."""
  a_page = jax.tree.leaves(jax.eval_shape(partial(policy.init_cache, 1, PAGE, cache_dtype)))
  tensor = 1 if mesh is None else mesh.shape["tensor"]
  parts = tensor if policy.config.kv_heads % tensor == 0 else 1  # heads are split, or copied
  return sum(x.size * x.dtype.itemsize for x in a_page) / parts / 2**30


def _with_kernels(
  config, mesh: Mesh | None, decoding: str | None, cache_dtype: str | None, slots: int | None
):
  """The last of `KERNELS` that can serve the model on these devices, unless `decoding` names one.

  A kernel for NVIDIA takes whole key heads, each device its own. With it, cuDNN reads the prompts
  instead of plain attention, unless heads are split.
  """
  parts = 1 if mesh is None else mesh.shape["tensor"]
  whole_heads = config.kv_heads % parts == 0
  if not whole_heads and decoding in {name for name, k in KERNELS.items() if k.nvidia}:
    raise ValueError(
      f"decoding={decoding!r} gives each device whole key heads: mesh.tensor={parts} must divide "
      f"the {config.kv_heads} of the policy."
    )
  misfit = tpu_pages.misfit(slots, cache_dtype, parts)
  if misfit and decoding in {name for name, k in KERNELS.items() if k.tpu}:
    raise ValueError(f"decoding={decoding!r} cannot serve {misfit}.")
  tpu = Device.of(mesh).platform == "tpu" and misfit is None
  least = (8, 9) if (cache_dtype or "").startswith("float8") else (8, 0)
  gpu = whole_heads and (nvidia(mesh) or (0, 0)) >= least
  here = lambda k: (gpu or not k.nvidia) and (tpu or not k.tpu)
  able = [n for n, k in KERNELS.items() if k.refusal(config) is None and here(k)]
  config = dataclasses.replace(config, decoding=decoding or able[-1])
  if config.attention == AUTO:
    kernel = config.decoding in able and KERNELS[config.decoding].nvidia and parts == 1
    fused = kernel and config.head_dim in FUSED_HEAD_DIMS
    config = dataclasses.replace(config, attention="cudnn" if fused else "xla")
  return config


def _bucket(length: int, limit: int) -> int:
  return min(max(SHORTEST, 1 << (length - 1).bit_length()), limit)


class Limits(NamedTuple):
  """What the host must know of its input before it picks a program."""

  least_cap: int
  most_cap: int
  shortest_prompt: int
  longest_prompt: int
  longest_trained: int  # prompt to train on
  groups_alike: int  # 1: the rows of every group have one prompt


def _on_host(x: Any) -> np.ndarray:
  """The rows of this process."""
  return to_local(x) if isinstance(x, jax.Array) else x


def _limits(rows: Rows, budget: Budget) -> Limits:
  """Of numpy arrays."""
  cap, lengths = programs.caps(rows, budget), rows.lengths
  trained = lengths if rows.train_lengths is None else rows.train_lengths
  alike = lambda x: (x == x[:, :1]).all()
  shared = alike(rows.tokens) & alike(lengths)
  found = cap.min(), cap.max(), lengths.min(), lengths.max(), trained.max(), shared
  return Limits(*map(int, found))


def _agreed(limits: Sequence[Sequence[int]]) -> Limits:
  """The limits of all rows, from those of each process."""
  merges: tuple[Callable[..., int], ...] = (min, max, min, max, max, min)  # by field
  fields = zip(merges, zip(*limits, strict=True), strict=True)
  return Limits(*(merge(values) for merge, values in fields))

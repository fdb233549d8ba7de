"""What the benchmarks measure: models by name with random weights, rows of tokens, and floors."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from lcrl import policies
from lcrl.data.rows import Rows
from lcrl.policies.attention import shares_prompts
from lcrl.policies.config import Config
from lcrl.policies.shapes import SHAPES
from lcrl.training.analysis.roofline import CHIPS, all_weights
from lcrl.types import Budget

FLAGS = flags.FLAGS

# 5.9 million parameters, for two CPU cores.
LAPTOP = Config(8192, 256, 4, 8, 2, 32, 1024, norm_eps=1e-5)


class Work(NamedTuple):
  """What a step samples: B prompts, G rollouts of each."""

  prompts: int
  group: int
  asked: int  # tokens of a prompt
  limit: int  # no response is longer
  heavy: bool = False  # lengths are log-normal, else all at the limit
  mean: float | None = None  # of the log-normal, before the limit cuts it; None: limit / 4

  @property
  def rows(self) -> int:
    return self.prompts * self.group

  def lengths(self, seed: int = 0) -> np.ndarray:
    """[B, G] int32, how long each response gets: its cap, where nothing else ends it."""
    shape = (self.prompts, self.group)
    if not self.heavy:
      return np.full(shape, self.limit, np.int32)
    sigma = 1.0
    draws = np.random.default_rng(seed).lognormal(
      np.log(self.mean or self.limit / 4) - sigma**2 / 2, sigma, shape
    )
    return np.clip(draws.round(), 1, self.limit).astype(np.int32)


class Update(NamedTuple):
  """How an update is run, as remat/attention/micro-batches/width/layers: the width of packed rows
  or 0, layers in an `unroll` or a `scan`, then /keep where the head's exponentials stay.

  >>> Update.of("dots/cudnn/4/0/unroll/keep").train["head_remat"]
  False
  """

  policy: dict[str, Any]  # changes of `Config`
  train: dict[str, Any]  # fields of the config's section

  @property
  def shares(self) -> bool:
    """Whether a group's prompt stands in a packed row once."""
    return bool(self.train["pack"]) and shares_prompts(self.policy["attention"])

  @classmethod
  def of(cls, run: str) -> Update:
    remat, attention, pieces, width, layers, *keep = run.split("/")
    if layers not in ("unroll", "scan") or keep not in ([], ["keep"]):
      raise ValueError(f"{run!r} is not remat/attention/micro-batches/width/unroll or scan[/keep].")
    return cls(
      {"remat": remat, "attention": attention, "unroll": layers == "unroll"},
      {"micro_batches": int(pieces), "pack": int(width) or None, "head_remat": not keep},
    )


def config(shape: str, *, dtype: str, **changes: Any) -> Config:
  """The configuration of a name in SHAPES or of "laptop"."""
  known = SHAPES | {"laptop": LAPTOP}
  if shape not in known:
    raise ValueError(f"Unknown shape {shape!r}: {', '.join(known)}.")
  return dataclasses.replace(known[shape], dtype=dtype, **changes)


def random_params(policy: policies.Policy, dtype: str, seed: int = 0) -> Any:
  """Matrices in `dtype`: what a sampler reads."""
  cast = lambda x: x.astype(dtype) if x.ndim > 1 else x
  return jax.jit(lambda key: jax.tree.map(cast, policy.init(key)))(jax.random.key(seed))


def make_rows(work: Work, vocab: int, seed: int = 0) -> tuple[Rows, Budget]:
  """Random prompts, the same within a group."""
  rng, shape = np.random.default_rng(seed), (work.prompts, work.group)
  tokens = np.broadcast_to(
    rng.integers(0, vocab, (work.prompts, 1, work.asked)), (*shape, work.asked)
  )
  index = np.arange(work.prompts, dtype=np.int32)
  full = lambda value: np.full(shape, value, np.int32)
  caps = work.lengths(seed)
  rows = Rows(tokens.astype(np.int32), full(work.asked), full(0), index, index, index)
  return rows, Budget(*map(jax.numpy.asarray, (caps, caps, full(0))))


def made_up(work: Work, vocab: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Rollouts to train on: tokens [B, G, asked + limit] int32, a prompt a group, none of them 0, and
  advantages of either sign [B, G] float32."""
  rng, shape = np.random.default_rng(seed), (work.prompts, work.group)
  rewards = rng.integers(0, 2, shape).astype(np.float32)
  tokens = rng.integers(1, vocab, (*shape, work.asked + work.limit), dtype=np.int32)
  tokens[..., : work.asked] = tokens[:, :1, : work.asked]
  if rewards.min() == rewards.max():  # products with gradients of 0 take less time and power
    return tokens, 2 * rewards - 1
  return tokens, rewards - rewards.mean()


def sampling_floor(
  c: Config,
  work: Work,
  *,
  rows: int,
  shared: bool,
  cache_bytes: int = 2,
  devices: int = 1,
  tensor: int = 1,
) -> float | None:
  """Seconds that memory alone needs: the weights once a token of the longest row, and every row's
  keys and values once a token of its own.

  Args:
    c: the model, in 2-byte weights.
    work: what is sampled.
    rows: that decode at once.
    shared: the keys of a prompt are read once for its group.
    cache_bytes: of a number in the cache.
    devices: that share the rows, or, `tensor` of them at a time, the heads of a row.
  Returns: None on a device whose bandwidth is not known.
  """
  chip = CHIPS.get(jax.devices()[0].device_kind)
  if chip is None:
    return None
  weights = 2 * all_weights(c)
  key = 2 * c.kv_heads * c.head_dim * c.layers * cache_bytes
  lengths = work.lengths().astype(np.float64)
  own = (lengths * (lengths + 1) / 2).sum()
  asked = work.asked * (lengths.max(axis=1) if shared else lengths).sum()
  steps = max(lengths.sum() / rows, lengths.max())
  return float(steps * weights / tensor + key * (own + asked) / devices) / chip.bandwidth


def timed(
  f: Callable[[], Any],
  repeats: int,
  first: Callable[[], Any] | None = None,
  *,
  warm: int = 1,
) -> dict[str, Any]:
  """The first call (of `first`, where that compiles as much), and the median after `warm` calls, in
  seconds; and what this process kept the host's cores busy, which others on them change less."""
  times, busy = [], []
  for call in [first or f] + [f] * (warm - 1 + repeats):
    start, used = time.perf_counter(), time.process_time()
    jax.block_until_ready(call())
    times.append(time.perf_counter() - start)
    busy.append(time.process_time() - used)
  return {
    "seconds": statistics.median(times[warm:]),
    "first_s": times[0],
    "all_s": [round(t, 4) for t in times[warm:]],
    "processor_s": round(statistics.median(busy[warm:]), 4),
  }


def peak_gib() -> float | None:
  """The most that this process had in use on the device so far; None where it does not say."""
  memory = jax.local_devices()[0].memory_stats() or {}
  return memory.get("peak_bytes_in_use", 0) / 2**30 or None


def compiler_options(pairs: list[str]) -> dict[str, bool] | None:
  """What `option=true` and `option=false` say; None where they say nothing.

  >>> compiler_options(["xla_gpu_enable_triton_gemm=false"])
  {'xla_gpu_enable_triton_gemm': False}
  """
  return {
    name: value == "true" for name, _, value in (pair.partition("=") for pair in pairs)
  } or None


def failure(error: Exception) -> dict[str, str]:
  """An error where a result would stand."""
  return {"error": f"{type(error).__name__}: {error}".partition("\n")[0][:300]}


def machine() -> dict[str, Any]:
  """Where and with what this was measured."""
  device = jax.devices()[0]
  plugins = ("jax-cuda12-plugin", "jax-cuda13-plugin")
  return {
    "device": device.device_kind,
    "devices": jax.device_count(),
    "versions": versions("jax", "jaxlib", "flax", *plugins),
  }


def versions(*names: str) -> dict[str, str]:
  """Of those of these packages that are installed."""
  found = {}
  for name in names:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found


def asked_work(heavy: bool = False) -> Work:
  """What the flags say."""
  return Work(FLAGS.prompts, FLAGS.group, FLAGS.asked, FLAGS.limit, heavy)


def define(**defaults: Any):
  """The flags that say what work there is; `defaults` that are other ones."""
  default = lambda name, value: (name, defaults.get(name, value))
  flags.DEFINE_string(*default("shape", "smollm2-135m"), "a model by name")
  flags.DEFINE_integer(*default("prompts", 64), "prompts")
  flags.DEFINE_integer(*default("group", 8), "rollouts of each")
  flags.DEFINE_integer(*default("asked", 96), "tokens of a prompt")
  flags.DEFINE_integer(*default("limit", 96), "the most tokens of a response")
  flags.DEFINE_string(*default("dtype", "bfloat16"), "of weights and computation")
  flags.DEFINE_integer(*default("repeats", 3), "timed calls after those that warm up")

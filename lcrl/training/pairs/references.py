"""Sources of the reference's log-probs: the functions that `reference.fn` of a config can name.

cached    computed once, before the first step, and stored on disk: takes no memory in training
shared    the policy without its adapters: no second copy of anything
frozen    a second copy of the parameters, read each step
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.evaluation import write_json
from lcrl.mesh import batch_sharding, local_rows, replicated, to_global
from lcrl.training.pairs.learner import PairLearner
from lcrl.training.remote import opened, publish, refresh
from lcrl.types import Pairs

__all__ = ["cached", "frozen", "shared"]

PyTree = Any
EXECUTION = ("remat", "unroll", "attention", "decoding")  # how a policy computes, not what
# The fields of `Config` that fingerprints have always held.
FIRST_FIELDS = (
  *("vocab_size", "hidden_size", "layers", "heads", "kv_heads", "head_dim"),
  *("mlp_size", "family", "rope", "norm_eps", "qkv_bias", "qk_norm"),
  *("tied", "windows", "attention_softcap", "logit_softcap", "max_length", "dtype"),
)
# pairs: numpy, and on the mesh -> [B, G, T]; None for a loss without a reference
Reference = Callable[[Pairs, Pairs], jax.Array | None]


class Subject(NamedTuple):
  """The run whose initial policy is the reference."""

  model: PairLearner
  base: PyTree  # the params below adapters, or ()
  data: str  # fingerprint of the pairs
  passes: Callable[[], Iterable[Pairs]]  # all pairs once, numpy
  folder: pathlib.Path  # of the run
  rows: str = ""  # fingerprint of the pairs before the chat template

  def params(self) -> PyTree:
    """The parameters of the policy before the first step."""
    return self.model.start() if self.model.settings.lora is None else self.base


def shared() -> Callable[[Subject], Reference]:
  """The policy without its adapters."""

  def make(subject: Subject) -> Reference:
    if subject.model.settings.lora is None:
      raise ValueError(
        "reference.fn='shared' needs a section lora: without adapters the policy that trains "
        "is no reference."
      )
    score = scorer(subject.model)
    return lambda _, pairs: score(subject.base, pairs)

  return make


def frozen() -> Callable[[Subject], Reference]:
  """A copy of the policy before the first step."""

  def make(subject: Subject) -> Reference:
    params, score = subject.params(), scorer(subject.model)
    return lambda _, pairs: score(params, pairs)

  return make


def cached(*, folder: str | None = None) -> Callable[[Subject], Reference]:
  """Log-probs of all pairs under the policy before the first step, read from `folder`.

  If the folder does not hold them yet, the run computes them. It refuses a folder with log-probs of
  other parameters or other pairs.

  Args:
    folder: where they are; None: "reference" in the run folder.
  """

  def make(subject: Subject) -> Reference:
    path = subject.folder / "reference" if folder is None else opened(folder).expanduser()
    params = subject.params()
    key = {"parameters": fingerprint(subject.model.policy.config, params), "pairs": subject.data}
    if not (path / "key.json").is_file():
      fill(path, key | {"rows": subject.rows}, subject, params)
    stored = json.loads((path / "key.json").read_text())
    if stored.get("pairs") != key["pairs"] and subject.rows and stored.get("rows") == subject.rows:
      logging.warning("%s is of the same pairs under prompts of another day or template.", path)
      stored["pairs"] = key["pairs"]
    for what, value in key.items():
      if stored.get(what) != value:
        raise ValueError(
          f"{path} holds the reference of other {what}: {stored.get(what)}, this run's are {value}."
        )
    return Cache(path, subject.model)

  return make


class Cache:
  """Log-probs of response tokens, pair by pair, in one file of float32."""

  def __init__(self, path: pathlib.Path, model: PairLearner):
    self._values = np.load(path / "log_probs.npy", mmap_mode="r")
    with np.load(path / "index.npz") as index:
      self._at = dict(zip(index["ids"].tolist(), index["starts"].tolist(), strict=True))
    self._mesh = model.mesh

  def __call__(self, pairs: Pairs, _: Pairs) -> jax.Array:
    out = np.zeros(pairs.mask.shape, np.float32)
    for b in np.flatnonzero(pairs.valid):
      mask, start = pairs.mask[b], self._at[int(pairs.pair_ids[b])]
      out[b][mask] = self._values[start : start + int(mask.sum())]
    return to_global(self._mesh, out[local_rows(self._mesh, len(out))])


def fill(path: pathlib.Path, key: dict[str, str], subject: Subject, params: PyTree) -> None:
  """Computes and writes the files of a `Cache`; the key comes last, as they count only with it."""
  model = subject.model
  logging.info("computing the reference's log-probs into %s", path)
  score, gather = scorer(model), jax.jit(lambda x: x, out_shardings=replicated(model.mesh))
  values: list[np.ndarray] = []
  ids: list[int] = []
  for pairs in subject.passes():
    log_probs = np.asarray(gather(score(params, model.place(pairs))))
    for b in np.flatnonzero(pairs.valid):
      ids.append(int(pairs.pair_ids[b]))
      values.append(log_probs[b][pairs.mask[b]])
  if jax.process_index() == 0:
    path.mkdir(parents=True, exist_ok=True)
    np.save(path / "log_probs.npy", np.concatenate(values).astype(np.float32))
    starts = np.cumsum([0, *(len(x) for x in values[:-1])])
    np.savez(path / "index.npz", ids=np.array(ids), starts=starts)
    write_json(path / "key.json", key)
    publish(path)
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    # The others read the files of the first process, so they wait until these are complete.
    multihost_utils.sync_global_devices("reference")
    if jax.process_index() > 0:
      refresh(path)


def scorer(model: PairLearner) -> Callable[[PyTree, Pairs], jax.Array]:
  """params, pairs -> log-probs [B, G, T]. If the data have another prompt for the reference
  (LongPO), it scores the same answers after that prompt."""

  align = jax.jit(aligned_to, out_shardings=batch_sharding(model.mesh))

  def score(params: PyTree, pairs: Pairs) -> jax.Array:
    tokens = pairs.signals.get("reference_tokens")
    if tokens is None:
      return model.score(params, pairs).log_probs
    mask = pairs.signals["reference_mask"]
    log = dataclasses.replace(pairs, tokens=tokens, mask=mask)
    return align(model.score(params, log).log_probs, mask, pairs.mask)

  return score


def aligned_to(values: jax.Array, mask: jax.Array, other: jax.Array) -> jax.Array:
  """Moves the k-th of `values` in `mask` to the k-th position in `other`. [..., T] each.

  Both masks are one run of the same number of tokens; the result is 0 elsewhere.

  >>> values, mask = jnp.array([0.0, 7.0, 8.0, 0.0]), jnp.array([False, True, True, False])
  >>> print(aligned_to(values, mask, jnp.roll(mask, 1)))
  [0. 0. 7. 8.]
  """
  nth = jnp.cumsum(other, -1) - 1 + jnp.argmax(mask, -1, keepdims=True)
  moved = jnp.take_along_axis(values, jnp.clip(nth, 0, values.shape[-1] - 1), -1)
  return jnp.where(other, moved, 0.0)


def fingerprint(config: Any, params: PyTree) -> str:
  """A hash of architecture and parameters that does not depend on the mesh.

  A field that `Config` got after the first version counts only where it is not at its default:
  else every reference that is stored would be one of another model.
  """
  fields = [f for f in dataclasses.fields(config) if f.name not in EXECUTION]
  values = [(f.name, getattr(config, f.name), f.default) for f in fields]
  counted = [(name, x) for name, x, default in values if name in FIRST_FIELDS or x != default]
  digest = hashlib.sha256(repr(counted).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    total = np.asarray(_checksum(leaf)).tolist()
    digest.update(repr((jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype), total)).encode())
  return digest.hexdigest()[:32]


@jax.jit
def _checksum(x: jax.Array) -> jax.Array:
  """The bits of x as integers, summed with odd weights that depend on the position. [] uint32."""
  bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  weight = jnp.zeros(x.shape, jnp.uint32)
  for axis in range(x.ndim):
    weight = weight * jnp.uint32(2654435761) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
  return jnp.sum(bits * (2 * weight + 1), dtype=jnp.uint32)

"""Where a reference's log-probs come from: what `reference.fn` of a config may name.

cached    computed once, before the first step, and kept on disk: costs no memory while training
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
from lcrl.types import Pairs

__all__ = ["cached", "frozen", "shared"]

PyTree = Any
HOW = ("remat", "unroll", "attention", "decoding")  # how a policy computes, not what it is
# pairs: numpy, and on the mesh -> [B, G, T]; None for a loss without a reference
Reference = Callable[[Pairs, Pairs], jax.Array | None]


class Subject(NamedTuple):
  """What a reference is taken of."""

  model: PairLearner
  base: PyTree  # the params below adapters, or ()
  data: str  # fingerprint of the pairs
  passes: Callable[[], Iterable[Pairs]]  # all pairs once, numpy
  folder: pathlib.Path  # of the run
  rows: str = ""  # fingerprint of the pairs as the data spell them, whatever a template adds

  def params(self) -> PyTree:
    """The policy as it was before the first step."""
    return self.model.start() if self.model.settings.lora is None else self.base


def shared() -> Callable[[Subject], Reference]:
  """The policy with its adapters off."""

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
  """A copy of the policy as it was before the first step."""

  def make(subject: Subject) -> Reference:
    params, score = subject.params(), scorer(subject.model)
    return lambda _, pairs: score(params, pairs)

  return make


def cached(*, folder: str | None = None) -> Callable[[Subject], Reference]:
  """Log-probs of all pairs under the policy as it was before the first step, from `folder`.

  They are computed where the folder does not hold them yet. A folder that holds those of other
  parameters or of other pairs is refused.

  Args:
    folder: None: "reference" in the run's own.
  """

  def make(subject: Subject) -> Reference:
    place = subject.folder / "reference" if folder is None else pathlib.Path(folder).expanduser()
    params = subject.params()
    key = {"parameters": fingerprint(subject.model.policy.config, params), "pairs": subject.data}
    if not (place / "key.json").is_file():
      fill(place, key | {"rows": subject.rows}, subject, params)
    found = json.loads((place / "key.json").read_text())
    if found.get("pairs") != key["pairs"] and subject.rows and found.get("rows") == subject.rows:
      logging.warning("%s is of the same pairs under prompts of another day or template.", place)
      found["pairs"] = key["pairs"]
    for what, value in key.items():
      if found.get(what) != value:
        raise ValueError(
          f"{place} holds the reference of other {what}: {found.get(what)}, this run's are {value}."
        )
    return Cache(place, subject.model)

  return make


class Cache:
  """Log-probs of response tokens, pair by pair, in one file of float32."""

  def __init__(self, place: pathlib.Path, model: PairLearner):
    self._values = np.load(place / "log_probs.npy", mmap_mode="r")
    with np.load(place / "index.npz") as index:
      self._at = dict(zip(index["ids"].tolist(), index["starts"].tolist(), strict=True))
    self._mesh = model.mesh

  def __call__(self, pairs: Pairs, _: Pairs) -> jax.Array:
    out = np.zeros(pairs.mask.shape, np.float32)
    for b in np.flatnonzero(pairs.valid):
      mask, start = pairs.mask[b], self._at[int(pairs.pair_ids[b])]
      out[b][mask] = self._values[start : start + int(mask.sum())]
    return to_global(self._mesh, out[local_rows(self._mesh, len(out))])


def fill(place: pathlib.Path, key: dict[str, str], subject: Subject, params: PyTree) -> None:
  """Computes what a `Cache` reads; the key is written last."""
  model = subject.model
  logging.info("computing the reference's log-probs into %s", place)
  score, gather = scorer(model), jax.jit(lambda x: x, out_shardings=replicated(model.mesh))
  values: list[np.ndarray] = []
  ids: list[int] = []
  for pairs in subject.passes():
    found = np.asarray(gather(score(params, model.place(pairs))))
    for b in np.flatnonzero(pairs.valid):
      ids.append(int(pairs.pair_ids[b]))
      values.append(found[b][pairs.mask[b]])
  if jax.process_index() == 0:
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "log_probs.npy", np.concatenate(values).astype(np.float32))
    starts = np.cumsum([0, *(len(x) for x in values[:-1])])
    np.savez(place / "index.npz", ids=np.array(ids), starts=starts)
    write_json(place / "key.json", key)
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices("reference")


def scorer(model: PairLearner) -> Callable[[PyTree, Pairs], jax.Array]:
  """params, pairs -> log-probs [B, G, T]. Where the data show the reference another prompt
  (LongPO), the same answers are read behind that one."""

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
  """The k-th of `values` where `mask`, at the k-th place where `other`. [..., T] each.

  Both masks are one run of as many tokens; it is 0 elsewhere.

  >>> values, mask = jnp.array([0.0, 7.0, 8.0, 0.0]), jnp.array([False, True, True, False])
  >>> print(aligned_to(values, mask, jnp.roll(mask, 1)))
  [0. 0. 7. 8.]
  """
  nth = jnp.cumsum(other, -1) - 1 + jnp.argmax(mask, -1, keepdims=True)
  found = jnp.take_along_axis(values, jnp.clip(nth, 0, values.shape[-1] - 1), -1)
  return jnp.where(other, found, 0.0)


def fingerprint(config: Any, params: PyTree) -> str:
  """Changes when the architecture or a parameter does, and not with how params lie on a mesh."""
  names = [f.name for f in dataclasses.fields(config) if f.name not in HOW]
  digest = hashlib.sha256(repr([(name, getattr(config, name)) for name in names]).encode())
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    total = np.asarray(_checksum(leaf)).tolist()
    digest.update(repr((jax.tree_util.keystr(path), leaf.shape, str(leaf.dtype), total)).encode())
  return digest.hexdigest()[:32]


@jax.jit
def _checksum(x: jax.Array) -> jax.Array:
  """The bits of x as whole numbers, summed with odd weights that depend on the place. [] uint32."""
  bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  weight = jnp.zeros(x.shape, jnp.uint32)
  for axis in range(x.ndim):
    weight = weight * jnp.uint32(2654435761) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
  return jnp.sum(bits * (2 * weight + 1), dtype=jnp.uint32)

"""One number an answer: kernel . h + bias, h the body's state at the answer's last token.

The head is the leaf "reward" of a policy's params, and of its adapters. It starts at 0, so
that all answers have one reward at first. A preference model of pairs has a head of `dimensions`
columns instead (`Embedding`), and its answers embeddings, scaled to length 1 / sqrt(temperature).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from lcrl.checks import positive
from lcrl.masked import as_float
from lcrl.mesh import BATCH
from lcrl.policies import Policy, lora
from lcrl.policies.attention import shares_prompts
from lcrl.policies.hf import Source
from lcrl.training import packing
from lcrl.training.float16 import scaled
from lcrl.training.packing import Packed, Sizes
from lcrl.training.scorer import on_mesh
from lcrl.values import Within

PyTree = Any
HEAD = "reward"
EMBEDDINGS = "embeddings"  # what a loss needs of which the head gives vectors
EMBEDDING_SEED = 0  # a form that is bilinear in the head has no gradient where the head is 0


@dataclasses.dataclass(frozen=True)
class Embedding:
  """The head of a preference model: the section `head`."""

  dimensions: Annotated[int, Within(2)] = 6  # of an embedding, even; 2 easily get stuck at 0
  temperature: float = 0.1  # of preferences, whose log-odds stay below its inverse

  def __post_init__(self):
    if self.dimensions % 2:
      raise ValueError(f"head.dimensions must be even, got {self.dimensions}.")
    positive(**{"head.temperature": self.temperature})


def axes(form: Embedding | None) -> PyTree:
  """The head is small, so every device holds all of it."""
  return {"kernel": (None,), "bias": ()} if form is None else {"kernel": (None, None)}


def first(policy: Policy, form: Embedding | None) -> PyTree:
  """The head before training."""
  size = policy.config.hidden_size
  if form is None:
    return {"kernel": jnp.zeros(size), "bias": jnp.zeros(())}
  noise = jax.random.normal(jax.random.key(EMBEDDING_SEED), (size, form.dimensions))
  return {"kernel": noise / size**0.5}


def with_head(source: Source, form: Embedding | None = None) -> Source:
  """The source of the same policy with a head among its params."""
  policy = source.policy

  def params(key=None, shardings: PyTree = None) -> PyTree:
    body, at = shardings, None
    if shardings is not None:
      body, at = {k: v for k, v in shardings.items() if k != HEAD}, shardings[HEAD]
    head = jax.jit(lambda: first(policy, form), out_shardings=at)()
    return source.params(key, body) | {HEAD: head}

  def headed(init):
    return jax.jit(lambda key: init(key) | {HEAD: first(policy, form)})

  whole = policy.axes | {HEAD: axes(form)}
  policy_with_head = dataclasses.replace(policy, axes=whole, init=headed(policy.init))
  return Source(policy_with_head, params, headed(source.init))


def adapters(
  policy: Policy, *, form: Embedding | None = None, **options
) -> tuple[Callable[[jax.Array], PyTree], PyTree]:
  """`lora.adapters`, and the head itself."""
  init, own = lora.adapters(policy, **options)
  return lambda key: init(key) | {HEAD: first(policy, form)}, own | {HEAD: axes(form)}


def merge(params: PyTree, adapted: PyTree, *, alpha: float) -> PyTree:
  """`lora.merge`, with the trained head."""
  return lora.merge(params, _body(adapted), alpha=alpha) | {HEAD: adapted[HEAD]}


def with_adapters(params: PyTree, adapted: PyTree, *, alpha: float) -> PyTree:
  """`lora.with_adapters`, with the trained head."""
  return lora.with_adapters(params, _body(adapted), alpha=alpha) | {HEAD: adapted[HEAD]}


def _body(adapted: PyTree) -> PyTree:
  return {name: x for name, x in adapted.items() if name != HEAD}


def make_scorer(
  policy: Policy,
  *,
  needs: tuple[str, ...] = (),
  mesh: Mesh | None = None,
  pack: int | None = None,
  form: Embedding | None = None,
) -> Callable[..., jax.Array]:
  """score(params, rows) -> rewards [B, G], or embeddings [B, G, D], 0 where a row has no answer.

  Args:
    policy: a policy of `with_head`.
    needs: score fields of tokens; a reward model has none.
    mesh: the devices of rows and params.
    pack: width of packed rows; score then takes `sizes`, and rows in the order of `arrange`.
    form: of the embeddings of a preference model; None: rewards.
  """
  if needs:
    raise ValueError(f"a reward model gives no {', '.join(needs)}.")
  hidden_of: Callable[..., jax.Array] = policy.hidden
  local: Callable[[Callable], Callable] = lambda f: f
  if mesh is not None and mesh.size > 1:
    hidden_of = on_mesh(policy.hidden, mesh)
    local = lambda f: jax.shard_map(f, mesh=mesh, in_specs=BATCH, out_specs=BATCH, check_vma=False)

  def reward_of(params: PyTree, last: jax.Array, rows: Any) -> jax.Array:
    head = params[HEAD]
    if form is not None:
      found = embedding(as_float(last), head["kernel"], form.temperature)
      return jnp.where(rows.mask.any(-1, keepdims=True), found, 0.0)
    rewards = jnp.sum(as_float(last) * _lift(head["kernel"], last.ndim), -1) + head["bias"]
    return jnp.where(rows.mask.any(-1), rewards, 0.0)

  def score(params: PyTree, rows: Any) -> jax.Array:
    end = jnp.maximum(packing.used_lengths(rows.mask) - 1, 0)
    pick = lambda hidden, end: jnp.take_along_axis(hidden, end[..., None, None], axis=-2)[..., 0, :]
    return reward_of(params, local(pick)(hidden_of(params, rows.tokens), end), rows)

  def score_packed(params: PyTree, rows: Any, *, sizes: Sizes) -> jax.Array:
    assert pack is not None
    place = rows.signals[packing.PLACE]
    cut = lambda tokens, mask, place: packing.pack(tokens, mask, place, sizes=sizes, width=pack)
    packed: Packed = local(cut)(rows.tokens, rows.mask, place)
    branches = packed.branches if shares_prompts(policy.config.attention) else None
    hidden = hidden_of(params, packed.tokens, packed.positions, packed.segments, branches)
    pick = lambda hidden, at: hidden.reshape(-1, hidden.shape[-1])[at]
    last = local(pick)(hidden, last_places(rows.mask, place, pack))
    fits = jnp.all(packed.fits)
    return jnp.where(fits, reward_of(params, last, rows), jnp.nan)

  chosen = score if pack is None else score_packed
  return scaled(chosen) if policy.config.dtype == "float16" else chosen


def last_places(mask: jax.Array, place: jax.Array, width: int) -> jax.Array:
  """The index, among the tokens of packed rows, of the last token of each answer. [B, G, T],
  `packing.Place` [B, G, 4] -> [B, G].

  >>> mask = jnp.array([[[False, True, True], [False, True, False]]])
  >>> print(last_places(mask, jnp.array([[[0, 0, 1, 1], [2, 1, 3, 1]]]), 8))
  [[ 2 19]]
  """
  end = jnp.maximum(packing.used_lengths(mask) - 1, 0)
  row, stem, start, shared = jnp.moveaxis(place, -1, 0)
  return row * width + end + jnp.where(end < shared, stem, start - shared)


def embedding(last: jax.Array, kernel: jax.Array, temperature: float) -> jax.Array:
  """A direction for each answer, of length 1 / sqrt(temperature). [..., H], [H, D] -> [..., D].

  Source: the released code of arXiv:2410.02197, which divides scores of unit vectors by 0.1.
  """
  found = jnp.einsum("...h,hd->...d", last, kernel, precision=jax.lax.Precision.HIGHEST)
  return found * jax.lax.rsqrt(temperature * jnp.sum(found**2, -1, keepdims=True) + 1e-12)


def _lift(kernel: jax.Array, ndim: int) -> jax.Array:
  return kernel.reshape((1,) * (ndim - 1) + kernel.shape)

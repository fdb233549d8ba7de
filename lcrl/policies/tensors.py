"""The params tree as the named tensors of a Hugging Face folder, and back.

A kernel is [in, out] here and [out, in] there; a stack of layers, or of the experts of layers, is
one leaf here and one tensor per layer and expert there.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.policies.config import Config
from lcrl.policies.leaves import TOP, Leaf, stored_leaves
from lcrl.policies.transformer import Policy

PyTree = Any
Index = tuple[slice, ...]


class Tensors(NamedTuple):
  """Named arrays that are read when asked for."""

  where: str  # the file or folder, for errors
  shapes: dict[str, tuple[int, ...]]
  read: Callable[[str, Index], np.ndarray]
  files: Mapping[str, str] = MappingProxyType({})  # of each tensor, where they are several

  def file(self, name: str) -> str:
    return self.files.get(name, self.where)


def assemble(policy: Policy, tensors: Tensors, dtype, shardings: PyTree = None) -> PyTree:
  """Params from named tensors; with `shardings`, each process reads its own slices.

  Raises:
    ValueError: a tensor is missing, left over, of another shape or not finite; it names the tensor.
  """
  tensors = one_head(tensors, policy.config.tied)
  shapes = jax.eval_shape(policy.init, jax.random.key(0))
  leaves, expected = stored_leaves(policy), stored_shapes(policy)
  _check(expected, tensors)
  if shardings is None:
    _check_memory(expected, tensors, np.dtype(dtype))

  def build(leaf, shape, sharding=None):
    read = functools.partial(_read, tensors, leaf, np.dtype(dtype))
    if sharding is None:
      return jnp.asarray(read((slice(None),) * len(shape.shape)))
    return jax.make_array_from_callback(shape.shape, sharding, read)

  return jax.tree.map(build, leaves, shapes, *([] if shardings is None else [shardings]))


def stored_shapes(policy: Policy) -> dict[str, tuple[int, ...]]:
  """The shape of each tensor on disk."""
  shapes = jax.tree.leaves(jax.eval_shape(policy.init, jax.random.key(0)))
  leaves = jax.tree.leaves(stored_leaves(policy))
  return {
    n: leaf.shape(x.shape) for leaf, x in zip(leaves, shapes, strict=True) for n in leaf.names
  }


def disassemble(policy: Policy, params: PyTree) -> Iterator[tuple[str, int, Callable]]:
  """(name, bytes, function that fetches the tensor), in the order of the tree."""
  parts: dict[str, list[tuple[Leaf, jax.Array, tuple[int, ...]]]] = {}
  for leaf, x in zip(jax.tree.leaves(stored_leaves(policy)), jax.tree.leaves(params), strict=True):
    for place, name in zip(np.ndindex(*leaf.stacked), leaf.names, strict=True):
      parts.setdefault(name, []).append((leaf, x, place))
  for name, found in parts.items():
    size = sum(x.nbytes // len(leaf.names) for leaf, x, _ in found)
    order = lambda part: part[0].rows or part[0].columns or ()
    yield name, size, functools.partial(_fetch, sorted(found, key=order))


def check_sizes(c: Config, tensors: Tensors, where: str) -> None:
  """Sizes that no tensor comes near: said before a model of these sizes is thought of.

  Raises:
    ValueError: a size is far from what the tensors have; it names `where` and the size.
  """
  full = [shape for shape in tensors.shapes.values() if 0 not in shape]
  widest = max((n for shape in full for n in shape), default=0)
  widths = {
    "vocab_size": c.vocab_size,
    "hidden_size": c.hidden_size,
    "intermediate_size": c.mlp_size,
    "num_attention_heads * head_dim": c.heads * c.head_dim,
  }
  for name, size in widths.items():
    if size > 16 * widest:  # closer ones are compared with their own tensor in `assemble`
      raise ValueError(f"{where}: {name} is {size}, but no tensor is wider than {widest}.")
  if c.layers > len(full):
    raise ValueError(
      f"{where}: num_hidden_layers is {c.layers}, but there are {len(full)} tensors in all."
    )


def one_head(tensors: Tensors, tied: bool) -> Tensors:
  """A tied matrix stands under either name; both names are one only if they hold the same."""
  embed, head = TOP["embed",], TOP["head",]
  if not tied or head not in tensors.shapes:
    return tensors
  shapes = dict(tensors.shapes)
  shape = shapes.pop(head)
  if embed in shapes:
    same = (
      shape == shapes[embed]
      and len(shape) == 2
      and all(
        np.array_equal(tensors.read(embed, rows), tensors.read(head, rows))
        for rows in _blocks(shape)
      )
    )
    if not same:
      raise ValueError(
        f"{tensors.file(head)}: tie_word_embeddings is true, but {head} is not {embed}: set it to "
        "false if the head is meant, or remove the tensor."
      )
    return tensors._replace(shapes=shapes)
  read = lambda name, index: tensors.read(head if name == embed else name, index)
  files = {**tensors.files, embed: tensors.file(head)}
  return Tensors(tensors.where, shapes | {embed: shape}, read, files)


def _blocks(shape: tuple[int, ...], rows: int = 8192) -> Iterator[Index]:
  for start in range(0, shape[0], rows):
    yield (slice(start, min(start + rows, shape[0])), slice(None))


def _check(expected: dict[str, tuple[int, ...]], tensors: Tensors) -> None:
  where, found = tensors.where, tensors.shapes
  if missing := sorted(set(expected) - set(found)):
    raise ValueError(f"{where}: tensor {missing[0]} is missing ({len(missing)} in all).")
  surplus = sorted(set(found) - set(expected))
  if surplus := [name for name in surplus if not name.endswith("rotary_emb.inv_freq")]:
    raise ValueError(f"{where}: tensor {surplus[0]} has no place in this model.")
  for name, shape in expected.items():
    if found[name] != shape:
      raise ValueError(f"{where}: tensor {name} is {list(found[name])}, should be {list(shape)}.")


def _check_memory(expected: dict[str, tuple[int, ...]], tensors: Tensors, dtype) -> None:
  asked = sum(math.prod(shape) for shape in expected.values()) * dtype.itemsize
  there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  if asked > there:
    raise ValueError(
      f"{tensors.where}: the parameters take {asked / 2**30:.0f} GiB as {dtype}, this machine has "
      f"{there / 2**30:.0f} GiB."
    )


def _read(tensors: Tensors, leaf: Leaf, dtype, index: Index) -> np.ndarray:
  """The part `index` of a leaf."""
  depth = len(leaf.stacked)
  stack: Any = np.array(leaf.names, object).reshape(leaf.stacked)
  names = stack[(*index[:depth], ...)]
  index = index[depth:]
  index = index[::-1] if leaf.transposed else index
  if leaf.rows is not None:
    first, end, _ = leaf.rows
    start, stop, _ = index[0].indices(end - first)
    index = (slice(first + start, first + stop), *index[1:])
  if leaf.columns is not None:
    first, step = leaf.columns
    start, stop, _ = index[-1].indices(tensors.shapes[leaf.names[0]][-1] // step)
    index = (*index[:-1], slice(first + step * start, step * stop, step))
  read = lambda name: _finite(tensors, name, index, dtype)
  turn = (lambda part: part.T) if leaf.transposed else (lambda part: part)
  one = turn(read(names.flat[0]))
  if not leaf.stacked:
    return one
  whole = np.empty((names.size, *one.shape), dtype)
  whole[0] = one
  for place, name in enumerate(names.flat[1:], 1):
    whole[place] = turn(read(name))
  return whole.reshape(*names.shape, *one.shape)


def _finite(tensors: Tensors, name: str, index: Index, dtype) -> np.ndarray:
  """A part of a tensor in `dtype`, refused where a value is nan, infinite or beyond `dtype`."""
  with np.errstate(over="ignore"):
    part = tensors.read(name, index).astype(dtype)
  # As integers, inf and nan are the largest of each sign. Maxima need no copy, unlike isfinite.
  for sign, kind in ((1, "i"), (-1, "u")):
    bits = f"{kind}{dtype.itemsize}"
    first = np.array(sign * np.inf, dtype).view(bits)
    if part.size and part.view(bits).max() >= first:
      raise ValueError(
        f"{tensors.file(name)}: tensor {name} has values that are not finite {dtype}."
      )
  return part


def _fetch(parts: list[tuple[Leaf, jax.Array, tuple[int, ...]]]) -> np.ndarray:
  """A tensor as it stands on disk, from the leaves that hold its rows or columns."""
  values = [np.asarray(x[place]) for _, x, place in parts]
  values = [x.T if leaf.transposed else x for x, (leaf, *_) in zip(values, parts, strict=True)]
  if parts[0][0].columns is not None:
    return np.stack(values, axis=-1).reshape(*values[0].shape[:-1], -1)
  return np.ascontiguousarray(values[0] if len(values) == 1 else np.concatenate(values))

"""Matrices of experts in MXFP4, as files of gpt-oss hold them.

A block is 32 neighbouring numbers of 4 bits (e2m1: a sign, two bits of exponent, one of mantissa),
two in a byte and the first in its low half, and one byte that is the exponent of their scale (e8m0,
2^(byte - 127); 255 is not a number). A matrix [in, out] of each of E experts is two tensors of
bytes, `_blocks` [E, out, in / 32, 16] and `_scales` [E, out, in / 32].
Source: OCP Microscaling Formats (MX) Specification 1.0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from lcrl.policies.tensors import Index, Tensors

_BLOCK = 32
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # e2m1, by exponent and mantissa
_DTYPE = np.dtype(jnp.bfloat16)  # which holds every value


def is_packed(raw: Mapping[str, Any]) -> bool:
  """Does config.json say that tensors are in MXFP4?"""
  said = raw.get("quantization_config")
  return isinstance(said, dict) and said.get("quant_method") == "mxfp4"


def is_part(name: str) -> bool:
  """Is it the name of a tensor of bytes?"""
  return name.endswith(("_blocks", "_scales"))


def decoded(blocks: np.ndarray, scales: np.ndarray) -> np.ndarray:
  """Numbers [..., J * 32] of bytes [..., J, 16] and scales [..., J], both uint8, as bfloat16.

  >>> print(decoded(np.full((1, 16), 0x92, np.uint8), np.array([128], np.uint8))[:3])
  [2 -1 2]
  """
  both = scales[..., None].astype(np.uint16) << 8 | blocks
  return np.take(_pairs(), both).view(_DTYPE).reshape(*scales.shape[:-1], -1)


@functools.cache
def _pairs() -> np.ndarray:
  """The numbers of each byte under each scale, [256 * 256]: two of bfloat16 as one of uint32."""
  ones = np.array([*_POSITIVE, *(-x for x in _POSITIVE)], np.float32)
  byte = np.arange(256)
  two = np.stack([ones[byte & 15], ones[byte >> 4]], axis=-1)
  scale = np.ldexp(np.float64(1), byte - 127)
  scale[255] = np.nan
  with np.errstate(over="ignore"):  # 6 * 2^127, which readers refuse as not finite
    pairs = (scale[:, None, None] * two).astype(_DTYPE)
  return np.ascontiguousarray(pairs).view(np.uint32).reshape(-1)


def dequantized(tensors: Tensors) -> Tensors:
  """The tensors with matrices [E, in, out] in place of their blocks and scales.

  Raises:
    ValueError: blocks or scales are missing or of another shape; it names the tensor.
  """
  shapes = {name: shape for name, shape in tensors.shapes.items() if not is_part(name)}
  packed = {n.rpartition("_")[0] for n in tensors.shapes if is_part(n)}
  for name in packed:
    blocks, scales = (tensors.shapes.get(f"{name}_{part}") for part in ("blocks", "scales"))
    if blocks is None or scales is None:
      raise ValueError(f"{tensors.where}: tensor {name} has no blocks, or no scales.")
    if len(blocks) != 4 or blocks != (*scales, _BLOCK // 2):
      raise ValueError(
        f"{tensors.where}: blocks of tensor {name} are {list(blocks)}, its scales {list(scales)}."
      )
    shapes[name] = (blocks[0], blocks[2] * _BLOCK, blocks[1])

  def read(name: str, index: Index) -> np.ndarray:
    if name not in packed:
      return tensors.read(name, index)
    experts, rows, columns = (
      slice(*part.indices(n)) for part, n in zip(index, shapes[name], strict=True)
    )
    first = rows.start // _BLOCK
    some = slice(first, -(-rows.stop // _BLOCK))
    inside = slice(rows.start - first * _BLOCK, rows.stop - first * _BLOCK, rows.step)

    def one(i: int) -> np.ndarray:  # at a time: bytes of all take much less memory
      where = slice(i, i + 1), columns, some
      scales = tensors.read(f"{name}_scales", where)
      return decoded(tensors.read(f"{name}_blocks", (*where, slice(None))), scales)[0, :, inside]

    return np.stack([one(i) for i in range(experts.start, experts.stop)]).swapaxes(1, 2)

  files = {**tensors.files, **{n: tensors.file(f"{n}_blocks") for n in packed}}
  return Tensors(tensors.where, shapes, read, files)

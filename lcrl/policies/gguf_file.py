"""The header of a GGUF file, read with bounds: no length is believed that the file cannot hold.

Format  github.com/ggml-org/ggml, docs/gguf.md, versions 2 and 3, little endian
"""

from __future__ import annotations

import functools
import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np

_SCALARS = {
  0: "B",
  1: "b",
  2: "H",
  3: "h",
  4: "I",
  5: "i",
  6: "f",
  7: "?",
  10: "Q",
  11: "q",
  12: "d",
}
_STRING, _ARRAY = 8, 9
_MOST_VALUES = 2**22  # of a header; a vocabulary of 260,000 tokens has 1.3 million
_MOST_BYTES = 2**24  # of a text
_MOST_DIMENSIONS = 4


class Tensor(NamedTuple):
  kind: gguf.GGMLQuantizationType
  shape: tuple[int, ...]  # the innermost dimension last
  data: np.ndarray  # bytes, [..., bytes of a row]

  def values(self) -> np.ndarray:
    """Dequantised, in `shape`."""
    return gguf.quants.dequantize(self.data, self.kind).reshape(self.shape)

  def parts(self) -> dict[Any, Tensor]:
    """The tensors along its first axis."""
    return {i: Tensor(self.kind, self.shape[1:], x) for i, x in enumerate(self.data)}


class File(NamedTuple):
  fields: dict[str, Any]
  tensors: dict[str, Tensor]


def read_file(path: Path) -> File:
  """Raises ValueError where it is cut short, not GGUF, or has a tensor of unsupported type."""
  try:
    with open(path, "rb") as file:
      cursor = _Cursor(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    return _read(cursor)
  except ValueError as e:
    raise ValueError(f"{path} cannot be read as a GGUF file: {e}") from e


class _Cursor:
  """Reads forward through the bytes of a file."""

  def __init__(self, content: mmap.mmap):
    self.content, self.at, self.values = content, 0, 0

  def take(self, size: int) -> bytes:
    end = self.at + size
    if end > len(self.content):
      raise ValueError(f"{size} bytes are announced at byte {self.at} of {len(self.content)}")
    taken = self.content[self.at : end]
    self.at = end
    return taken

  def count(self, values: int) -> None:
    self.values += values
    if self.values > _MOST_VALUES:
      raise ValueError(f"its header announces more than {_MOST_VALUES} values")

  def number(self, code: str) -> Any:
    return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

  def text(self) -> str:
    if (size := self.number("Q")) > _MOST_BYTES:
      raise ValueError(f"a text of {size} bytes")
    return self.take(size).decode("utf-8")

  def value(self, kind: int) -> Any:
    if kind == _STRING:
      return self.text()
    if kind == _ARRAY:
      return self.array(self.number("I"), self.number("Q"))
    if kind not in _SCALARS:
      raise ValueError(f"the unknown type of values {kind}")
    return self.number(_SCALARS[kind])

  def array(self, kind: int, length: int) -> list[Any]:
    self.count(length)
    if kind == _STRING:
      return [self.text() for _ in range(length)]
    if kind not in _SCALARS:
      raise ValueError(f"an array of the unknown type {kind}")
    kinds = f"<{length}{_SCALARS[kind]}"
    return list(struct.unpack(kinds, self.take(struct.calcsize(kinds))))


def _read(cursor: _Cursor) -> File:
  if cursor.take(4) != b"GGUF":
    raise ValueError("it does not begin with GGUF")
  if (version := cursor.number("I")) not in (2, 3):
    raise ValueError(f"its version is {version}, known are 2 and 3 in little endian")
  tensor_count, field_count = cursor.number("Q"), cursor.number("Q")
  cursor.count(tensor_count + field_count)
  fields: dict[str, Any] = {}
  for _ in range(field_count):
    key = cursor.text()
    if key in fields:
      raise ValueError(f"field {_said(key)} stands twice")
    try:
      fields[key] = cursor.value(cursor.number("I"))
    except ValueError as e:
      raise ValueError(f"field {_said(key)}: {e}") from e
  infos = [_read_info(cursor) for _ in range(tensor_count)]
  alignment = fields.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
  if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
    raise ValueError(f"general.alignment={alignment!r} is not a power of two")
  return File(fields, _lay_out(cursor, infos, alignment))


def _said(name: str) -> str:
  """A name in one short line, which it need not be where the file is damaged."""
  return repr(name[:80])[1:-1]


class _Info(NamedTuple):
  name: str
  shape: tuple[int, ...]
  kind: gguf.GGMLQuantizationType
  offset: int  # from the first byte after the header


def _read_info(cursor: _Cursor) -> _Info:
  name = cursor.text()
  if not 1 <= (dimensions := cursor.number("I")) <= _MOST_DIMENSIONS:
    raise ValueError(f"tensor {_said(name)} has {dimensions} dimensions")
  shape = tuple(cursor.number("Q") for _ in range(dimensions))[::-1]
  kind = cursor.number("I")
  if trouble := _trouble(kind):
    raise ValueError(f"tensor {_said(name)} has {trouble}")
  return _Info(name, shape, gguf.GGMLQuantizationType(kind), cursor.number("Q"))


def _lay_out(cursor: _Cursor, infos: list[_Info], alignment: int) -> dict[str, Tensor]:
  """The format puts tensors one behind the other in the order of the header, aligned."""
  align = lambda at: -(-at // alignment) * alignment
  start, expected = align(cursor.at), 0
  tensors: dict[str, Tensor] = {}
  for name, shape, kind, offset in infos:
    if name in tensors:
      raise ValueError(f"tensor {_said(name)} stands twice")
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    if 0 in shape or shape[-1] % block:
      raise ValueError(
        f"tensor {_said(name)} of shape {list(shape)} does not fill blocks of {block}"
      )
    if offset != expected:
      raise ValueError(f"tensor {_said(name)} should begin at {expected}, not at {offset}")
    row = shape[-1] // block * block_bytes
    size = math.prod(shape[:-1]) * row
    if start + offset + size > len(cursor.content):
      raise ValueError(f"tensor {_said(name)} of {size} bytes ends after the file")
    data = np.frombuffer(cursor.content, np.uint8, size, start + offset)
    tensors[name] = Tensor(kind, shape, data.reshape(*shape[:-1], row))
    expected = align(offset + size)
  return tensors


@functools.cache
def _trouble(kind: int) -> str | None:
  """Why values of this type cannot be read, or None: tried on a block of zeros."""
  try:
    known = gguf.GGMLQuantizationType(kind)
    gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[known][1]), np.uint8), known)
  except (ValueError, KeyError):
    return f"the unknown type {kind}"
  except NotImplementedError:
    return f"type {known.name}, which cannot be dequantised"
  return None

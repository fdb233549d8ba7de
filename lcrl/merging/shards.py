"""Writes safetensors with no more than one tensor in memory; the library's writer needs a file's.

A file is the length of a header (8 bytes), the header as JSON, and the tensors' bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lcrl.policies.folder import INDEX, WHOLE

_NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Part(NamedTuple):
  name: str
  shape: tuple[int, ...]
  dtype: np.dtype

  @property
  def size(self) -> int:
    """Bytes."""
    return math.prod(self.shape) * self.dtype.itemsize


def write(
  folder: Path, parts: Sequence[Part], arrays: Iterable[np.ndarray], shard_bytes: int
) -> None:
  """Writes the arrays of `parts`, in their order, in files of about `shard_bytes` with an index.

  >>> import tempfile
  >>> from safetensors.numpy import load_file
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   write(Path(folder), [Part("a", (2,), np.dtype("float16"))], [np.ones(2, np.float16)], 100)
  ...   print(load_file(Path(folder) / "model.safetensors"))
  {'a': array([1., 1.], dtype=float16)}
  """
  shards: list[list[Part]] = [[]]
  for part in parts:
    if shards[-1] and sum(p.size for p in shards[-1]) + part.size > shard_bytes:
      shards.append([])
    shards[-1].append(part)
  left = iter(arrays)
  where: dict[str, str] = {}
  for i, own in enumerate(shards, 1):
    file = WHOLE if len(shards) == 1 else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
    _write_file(folder / file, own, left)
    where |= dict.fromkeys((part.name for part in own), file)
  if len(shards) > 1:
    index = {"metadata": {"total_size": sum(p.size for p in parts)}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _write_file(path: Path, parts: Sequence[Part], arrays: Iterator[np.ndarray]) -> None:
  header: dict = {"__metadata__": {"format": "pt"}}
  end = 0
  for part in parts:
    start, end = end, end + part.size
    kind = _NAMES[part.dtype.name]
    header[part.name] = {"dtype": kind, "shape": part.shape, "data_offsets": [start, end]}
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)
  with path.open("wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for _ in parts:
      file.write(np.ascontiguousarray(next(arrays)).view(np.uint8).data)

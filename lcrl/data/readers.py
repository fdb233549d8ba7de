"""The functions that `rows.fn` of a data section may name: rows of a file with their locations."""

from __future__ import annotations

import json as _json
import pathlib
from typing import Any

__all__ = ["json", "jsonl", "parquet"]

Rows = list[tuple[str, dict[str, Any]]]  # location ("file, line 3"), columns by name


def jsonl(path: str) -> Rows:
  """One JSON object a line.

  Raises:
    ValueError: a line that is no UTF-8, no JSON or no object, by file and line; an empty file.
  """
  rows: Rows = []
  for number, line in enumerate(pathlib.Path(path).read_bytes().split(b"\n"), start=1):
    if not line.strip():
      continue
    where = f"{path}, line {number}"
    try:
      rows.append((where, _loaded(line)))
    except ValueError as why:  # of the encoding or of the syntax; both name the position
      raise ValueError(f"{where}: {why}") from why
  return _checked(rows, path)


def json(path: str) -> Rows:
  """One array of JSON objects. Raises as `jsonl` does."""
  content = pathlib.Path(path).read_bytes()
  try:
    rows = _loaded(content)
  except UnicodeDecodeError as why:
    line = content.count(b"\n", 0, why.start) + 1
    raise ValueError(f"{path}, line {line}: {why}") from why
  except ValueError as why:  # it names the line
    raise ValueError(f"{path}: {why}") from why
  if not isinstance(rows, list):
    raise ValueError(f"{path}: an array of objects was expected, got {type(rows).__name__}.")
  return _checked([(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)], path)


def parquet(path: str) -> Rows:
  """A Parquet file; needs pyarrow, which the extra `parquet` brings.

  Raises:
    ImportError: pyarrow is not installed.
    ValueError: a row that is no UTF-8, by file and row; an empty file.
  """
  try:
    from pyarrow import parquet as reader
  except ImportError as why:
    raise ImportError(f"{path}: Parquet needs pyarrow: pip install pyarrow.") from why
  rows: Rows = []
  with reader.ParquetFile(path) as file:
    for batch in file.iter_batches():
      for i in range(batch.num_rows):
        where = f"{path}, row {len(rows) + 1}"
        try:
          rows += [(where, row) for row in batch.slice(i, 1).to_pylist()]
        except UnicodeDecodeError as why:
          raise ValueError(f"{where}: {why}") from why
  return _checked(rows, path)


def _loaded(content: bytes) -> Any:
  """Raises ValueError, also for half a surrogate pair: JSON can write it, UTF-8 cannot."""
  try:
    row = _json.loads(content.decode())
  except RecursionError as why:
    raise ValueError("it is nested too deep") from why
  if b"\\u" in content:
    _json.dumps(row, ensure_ascii=False).encode()
  return row


def _checked(rows: Rows, path: str) -> Rows:
  for where, row in rows:
    if not isinstance(row, dict):
      raise ValueError(f"{where}: an object was expected, got {row!r:.50}.")
  if not rows:
    raise ValueError(f"{path} holds no rows.")
  return rows

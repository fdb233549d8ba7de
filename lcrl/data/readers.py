"""Rows of files with their locations. `rows.fn` of a data section names json, jsonl or parquet."""

from __future__ import annotations

import csv as _csv
import gzip
import io
import json as _json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["json", "jsonl", "parquet"]

LAYOUTS = ("jsonl", "json", "parquet")
Row = tuple[str, dict[str, Any]]  # location ("file, line 3"), columns by name
Rows = list[Row]
_BATCH = 1024  # rows of a Parquet file that are in memory at a time


def jsonl(path: str) -> Rows:
  """One JSON object a line; the file may be compressed (.gz).

  Raises:
    ValueError: a line that is no UTF-8, no JSON or no object, by file and line; an empty file.
  """
  return _checked(list(_lines(path)), path)


def json(path: str) -> Rows:
  """One array of JSON objects. Raises as `jsonl` does.

  >>> import json as plain, tempfile
  >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
  ...   plain.dump([{"prompt": "1 + 1?"}], file)
  ...   file.flush()
  ...   [row for _, row in json(file.name)]
  [{'prompt': '1 + 1?'}]
  """
  rows = _document(path)
  if not isinstance(rows, list):
    raise ValueError(f"{path}: an array of objects was expected, got {type(rows).__name__}.")
  return _checked([(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)], path)


def parquet(path: str) -> Rows:
  """A Parquet file; needs pyarrow, which the extra `parquet` brings.

  Raises:
    ImportError: pyarrow is not installed.
    ValueError: a row that is no UTF-8, by file and row; an empty file.
  """
  return _checked(list(_batches(path)), path)


def by_name(path: str, *, field: str | None = None) -> Rows:
  """The rows of a file of one of LAYOUTS, by the end of its name.

  Raises:
    ValueError: as these do; another end, with the name of the `field`.
  """
  readers = dict(zip(LAYOUTS, (jsonl, json, parquet), strict=True))
  layout = Path(path).suffix.removeprefix(".")
  if layout not in readers:
    raise ValueError(f"{field or path} must end in .{', .'.join(readers)}.")
  return readers[layout](path)


def stream(path: str) -> Iterator[Row]:
  """Rows of a file in any layout that publishers use, one by one, by the end of its name.

  .jsonl, .parquet and .csv are read piece by piece. .json, which is read as a whole, holds an array
  of objects, one object, or one a line. All but Parquet may be compressed (.gz).

  Raises:
    ValueError: as `jsonl` and `parquet` do; an unknown end of the name.
  """
  ending = data_ending(path)
  if ending is None:
    raise ValueError(f"{path} ends in none of {', '.join(_STREAMS)}.")
  empty = True
  for row in _STREAMS[ending](path):
    empty = False
    yield _checked([row], path)[0]
  if empty:
    raise ValueError(f"{path} holds no rows.")


def data_ending(path: str) -> str | None:
  """The end of the name of a file that `stream` reads, without .gz; None for other files.

  >>> data_ending("helpful-base/train.jsonl.gz"), data_ending("README.md")
  ('.jsonl', None)
  """
  name = path.removesuffix(".gz")
  ending = Path(name).suffix
  return ending if ending in _STREAMS and (name == path or ending != ".parquet") else None


def _open(path: str) -> BinaryIO:
  return gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb")  # type: ignore


def _numbered(path: str) -> Iterator[tuple[int, bytes]]:
  with _open(path) as file:
    try:
      yield from enumerate(file, start=1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as why:
      raise ValueError(f"{path}: {why}") from why


def _lines(path: str) -> Iterator[Row]:
  for number, line in _numbered(path):
    if line.strip():
      where = f"{path}, line {number}"
      try:
        yield where, _loaded(line)
      except ValueError as why:  # of the encoding or of the syntax; both name the position
        raise ValueError(f"{where}: {why}") from why


def _document(path: str) -> Any:
  content = b"".join(line for _, line in _numbered(path))
  try:
    return _loaded(content)
  except UnicodeDecodeError as why:
    line = content.count(b"\n", 0, why.start) + 1
    raise ValueError(f"{path}, line {line}: {why}") from why
  except ValueError as why:  # it names the line
    raise ValueError(f"{path}: {why}") from why


def _array(path: str) -> Iterator[Row]:
  try:
    rows = _document(path)
  except ValueError as why:
    cause = why.__cause__
    if not isinstance(cause, _json.JSONDecodeError) or cause.msg != "Extra data":
      raise
    yield from _lines(path)  # JSON lines by another name
    return
  if not isinstance(rows, list):
    yield path, rows
    return
  for number, row in enumerate(rows, start=1):
    yield f"{path}, row {number}", row


def _batches(path: str) -> Iterator[Row]:
  try:
    import pyarrow
    from pyarrow import parquet as reader
  except ImportError as why:
    raise ImportError(f"{path}: Parquet needs pyarrow: pip install pyarrow.") from why
  done = 0
  try:
    with reader.ParquetFile(path) as file:
      for batch in file.iter_batches(_BATCH):
        for row in _rows_of(batch, path, done):
          done += 1
          yield f"{path}, row {done}", row
  except pyarrow.ArrowException as why:
    raise ValueError(f"{path}, after row {done}: {why}") from why


def _rows_of(batch: Any, path: str, done: int) -> list[dict[str, Any]]:
  try:
    return batch.to_pylist()
  except UnicodeDecodeError:
    return [_row_of(batch, i, f"{path}, row {done + i + 1}") for i in range(batch.num_rows)]


def _row_of(batch: Any, i: int, where: str) -> dict[str, Any]:
  try:
    return batch.slice(i, 1).to_pylist()[0]
  except UnicodeDecodeError as why:
    raise ValueError(f"{where}: {why}") from why


def _table(path: str) -> Iterator[Row]:
  """A row that is longer or shorter than the header is an error."""
  _csv.field_size_limit(1 << 30)
  with _open(path) as file:
    reader = _csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), strict=True)
    try:
      header = next(reader, [])
      for row in reader:
        if len(row) != len(header):
          raise ValueError(f"{len(row)} fields, but the header has {len(header)}")
        yield f"{path}, line {reader.line_num}", dict(zip(header, row, strict=True))
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile, _csv.Error) as why:
      raise ValueError(f"{path}, line {reader.line_num}: {why}") from why


_STREAMS = {".jsonl": _lines, ".json": _array, ".parquet": _batches, ".csv": _table}


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

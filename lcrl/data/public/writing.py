"""Writes rows so that a reader sees the old file or the new one, never half of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
_BATCH = 1024  # rows that Parquet compresses together
_MESSAGE = {"role", "content"}


def write(path: Path, rows: Iterable[Row]) -> None:
  """Writes JSON lines or Parquet, by the end of the name.

  Parquet holds chats only: columns of messages and of scores. Their types are then known before the
  rows are.

  Raises:
    ValueError: another end of the name, or a row that Parquet cannot hold as it is.
  """
  writers = {".jsonl": _write_lines, ".parquet": _write_parquet}
  if path.suffix not in writers:
    raise ValueError(f"--out={path} must end in {' or '.join(writers)}.")
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(f".{path.name}.{os.getpid()}")
  try:
    writers[path.suffix](partial, rows)
    with open(partial, "rb") as file:
      os.fsync(file.fileno())
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
  with open(path, "w", encoding="utf-8") as file:
    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write_parquet(path: Path, rows: Iterable[Row]) -> None:
  try:
    import pyarrow as arrow
    from pyarrow import parquet
  except ImportError as why:
    raise ValueError("Parquet needs pyarrow: pip install pyarrow, or write .jsonl.") from why
  rows = iter(rows)
  first = next(rows, {})
  messages = arrow.list_(arrow.struct([(name, arrow.string()) for name in sorted(_MESSAGE)]))
  kinds = {n: messages if isinstance(v, list) else arrow.float64() for n, v in first.items()}
  schema = arrow.schema(kinds)
  with parquet.ParquetWriter(path, schema) as writer:
    for batch in _batches(chain([first] if first else [], rows)):
      for row in batch:
        _check_columns(row, schema.names)
      writer.write_table(arrow.Table.from_pylist(batch, schema=schema))


def _check_columns(row: Row, names: list[str]) -> None:
  """Raises ValueError for a value that `from_pylist` would drop."""
  if row.keys() != set(names):
    raise ValueError(f"rows differ in columns: {', '.join(names)} and {', '.join(row)}; {_LINES}")
  for message in chain(*(value for value in row.values() if isinstance(value, list))):
    if not message.keys() <= _MESSAGE:
      raise ValueError(f"a message has more than role and content: {message!r:.80}; {_LINES}")
  for name, value in row.items():
    if not isinstance(value, list | float | int | None):
      raise ValueError(f"Parquet is for chats, but {name} is {value!r:.50}; {_LINES}")


_LINES = "--out=NAME.jsonl holds them."


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
  while batch := list(islice(rows, _BATCH)):
    yield batch

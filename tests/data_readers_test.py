"""Files of rows as publishers lay them out."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest

from lcrl.data import readers

ROWS = [{"a": "1", "b": 'two\n"lines" é'}, {"a": "2", "b": ""}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = 'a,b\r\n1,"two\n""lines"" é"\r\n2,\r\n'.encode("utf-8-sig")
CONTENTS = {
  "a.jsonl": LINES,
  "a.jsonl.gz": gzip.compress(LINES, mtime=0),
  "a.json": json.dumps(ROWS, indent=1).encode(),
  "a.json.gz": gzip.compress(json.dumps(ROWS).encode(), mtime=0),
  "lines.json": LINES,
  "a.csv": TABLE,
  "a.csv.gz": gzip.compress(TABLE, mtime=0),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_every_layout_gives_the_same_rows(tmp_path, name):
  (tmp_path / name).write_bytes(CONTENTS[name])
  assert [row for _, row in readers.stream(str(tmp_path / name))] == ROWS


def test_one_object_is_one_row(tmp_path):
  path = tmp_path / "1.json"
  path.write_text(json.dumps(ROWS[0], indent=2))
  assert list(readers.stream(str(path))) == [(str(path), ROWS[0])]


def test_parquet_in_pieces(tmp_path, monkeypatch):
  monkeypatch.setattr(readers, "_BATCH", 2)
  rows = [{"n": n} for n in range(5)]
  path = str(tmp_path / "a.parquet")
  pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
  found = list(readers.stream(path))
  assert [row for _, row in found] == rows
  assert [where for where, _ in found] == [f"{path}, row {n}" for n in range(1, 6)]
  raw = pyarrow.array([b"a", b"b", b"c", b"\xff"], pyarrow.binary()).view(pyarrow.string())
  pyarrow.parquet.write_table(pyarrow.table({"n": raw}), path)
  with pytest.raises(ValueError, match=r"a\.parquet, row 4: .*0xff"):
    list(readers.stream(path))


@pytest.mark.parametrize(
  "name, content, message",
  [
    (
      "a.jsonl.gz",
      gzip.compress(LINES, mtime=0)[:-9],
      r"a\.jsonl\.gz: Compressed file ended",
    ),
    ("a.jsonl.gz", LINES, r"a\.jsonl\.gz: Not a gzipped file"),
    (
      "a.csv.gz",
      gzip.compress(TABLE, mtime=0)[:-9],
      r"a\.csv\.gz, line \d+: Compressed file",
    ),
    ("a.csv", b"a,b\n1,2\n1\n", r"a\.csv, line 3: 1 fields, but the header has 2"),
    ("a.csv", b"a\n\xff\n", r"a\.csv, line \d: .*0xff"),
    ("a.csv", b'a,b\n1,"2\n', r"a\.csv, line 2: unexpected end of data"),
    ("a.csv", b"a,b\n", r"a\.csv holds no rows"),
    ("a.json", b"[1]", r"a\.json, row 1: an object was expected, got 1"),
    ("a.json", b'{"a": 1', r"a\.json: Expecting ',' delimiter: line 1"),
    ("a.json", b'{"a": 1}\n{"a"}', r"a\.json, line 2: Expecting ':'"),
    ("a.json", b"[]", r"a\.json holds no rows"),
    ("a.parquet", b"PAR1, cut", r"a\.parquet, after row 0: "),
    ("a.txt", b"a", r"a\.txt ends in none of \.jsonl, \.json, \.parquet, \.csv\."),
  ],
)
def test_a_bad_file_is_named(tmp_path, name, content, message):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(ValueError, match=message):
    list(readers.stream(str(tmp_path / name)))

"""Files of judges, in the layout of AlpacaEval 2, and the files that they judge from.

An annotation compares output_2, the model's, with output_1, the baseline's; its preference is 2 for
the model, 1 for the baseline, 1.5 or 0 for a draw, and in between for a weighted judge. Rows of two
files belong together by index, or by instruction; where one has the instruction alone and the other
the index, the row at position i has index i.
"""

from __future__ import annotations

import collections
import csv
import json
import math
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lcrl.evaluation.length_controlled import Gamed

__all__ = ["Judged", "model_outputs", "read_difficulty", "read_gamed", "read_judged", "read_rows"]

Records = list[Mapping[str, Any]]


class Judged(NamedTuple):
  """A model judged against a baseline on N instructions."""

  model: str
  baseline: str | None  # None: the file does not say
  keys: tuple[Hashable, ...]  # of the instructions: their texts, or numbers
  preference: np.ndarray  # [N]
  lengths: np.ndarray  # [N] characters of the model's outputs
  baseline_lengths: np.ndarray  # [N]

  def check_same_instructions(self, other: Judged) -> None:
    """Raises ValueError unless both are judged on the same instructions against one baseline."""
    if only := set(self.keys) ^ set(other.keys):
      raise ValueError(
        f"{self.model} and {other.model} were judged on other instructions: {len(only)} have only "
        f"one of them, such as {min(map(str, only))!r:.60}."
      )
    ours, theirs = (dict(zip(x.keys, x.baseline_lengths, strict=True)) for x in (self, other))
    if self.baseline != other.baseline and None not in (self.baseline, other.baseline):
      raise ValueError(
        f"{self.model} was judged against {self.baseline}, {other.model} against {other.baseline}."
      )
    if differing := [key for key in self.keys if ours[key] != theirs[key]]:
      raise ValueError(
        f"the baselines of {self.model} and {other.model} differ: at {differing[0]!r:.60} their "
        f"lengths are {ours[differing[0]]} and {theirs[differing[0]]}."
      )


def read_rows(path: str | os.PathLike) -> Records:
  """The rows of a CSV file or of a JSON array of objects.

  >>> import tempfile
  >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
  ...   _ = file.write("index,preference\\n0,1.5\\n")
  ...   file.flush()
  ...   read_rows(file.name)
  [{'index': '0', 'preference': '1.5'}]
  """
  try:
    if Path(path).suffix == ".csv":
      with open(path, encoding="utf-8", newline="") as file:
        rows: Records = list(csv.DictReader(file))
    else:
      rows = json.loads(Path(path).read_text(encoding="utf-8"))
  except (ValueError, csv.Error) as why:
    raise ValueError(f"{path}: {why}") from None
  if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
    raise ValueError(f"{path} holds no array of objects, or an empty one.")
  return rows


def read_judged(path: str | os.PathLike) -> Judged:
  """Annotations as AlpacaEval 2 writes them, or CSV with index (or instruction), preference,
  len_output and len_baseline.

  Raises:
    ValueError: a preference that is no number in [1, 2] or 0, two rows on one instruction, several
      models in one file.
  """
  rows = read_rows(path)
  has_texts = "output_2" in rows[0]
  length = lambda row, text, count: len(row[text]) if has_texts else _number(row, count)
  keys = _keys(path, rows)
  lengths, baseline_lengths, preferences = [], [], []
  for key, row in zip(keys, rows, strict=True):
    try:
      lengths.append(length(row, "output_2", "len_output"))
      baseline_lengths.append(length(row, "output_1", "len_baseline"))
      preferences.append(_number(row, "preference"))
    except (KeyError, TypeError, ValueError) as why:
      raise ValueError(f"{path}, {key!r:.60}: {_said(why)}") from None
  wrong = [i for i, p in enumerate(preferences) if not (p == 0 or 1 <= p <= 2)]
  if wrong:
    raise ValueError(
      f"{path}: {len(wrong)} of {len(rows)} preferences are not 0 or from 1 to 2, the first is "
      f"{preferences[wrong[0]]} at {keys[wrong[0]]!r:.60}."
    )
  names = [_only(path, rows, f"generator_{i}") for i in (2, 1)]
  sides = (np.array(preferences), np.array(lengths), np.array(baseline_lengths))
  return Judged(names[0] or Path(path).stem, names[1], keys, *sides)


def read_difficulty(path: str | os.PathLike, judged: Judged) -> np.ndarray:
  """[N] instruction_difficulty of a CSV or JSON file, in the order of the judged instructions."""
  rows = _table(path, read_rows(path), judged)
  return np.array([_number(row, "instruction_difficulty") for row in rows])


def read_gamed(path: str | os.PathLike, judged: Judged) -> Gamed:
  """The gamed baselines of a CSV or JSON file: blocks of rows by model, each with std_delta_len and
  a preference in [0, 1] for every judged instruction."""
  blocks: dict[str, Records] = {}
  for row in read_rows(path):
    blocks.setdefault(str(row.get("model")), []).append(row)
  tables = [_table(f"{path}, {name}", rows, judged) for name, rows in blocks.items()]
  column = lambda name: np.array([[_number(row, name) for row in rows] for rows in tables])
  gamed = Gamed(column("std_delta_len"), column("preference"))
  if not ((gamed.wins >= 0) & (gamed.wins <= 1)).all():
    raise ValueError(f"{path}: a preference of a gamed baseline lies from 0 to 1.")
  return gamed


def model_outputs(
  answers: Sequence[Mapping[str, Any]], *, generator: str, after: str | None = None
) -> list[dict[str, str]]:
  """Answers of an evaluation as judges read them: instruction, output, generator and dataset.

  Args:
    answers: rows of an answers file, at one budget; the first answer to each prompt is taken.
    generator: the name of the model.
    after: text that ends the thinking, such as </think>; the output is what follows it.
  Raises:
    ValueError: a conversation of several turns, which has no one instruction.

  >>> rows = [dict(prompt_id=0, sample=0, prompt=[{"role": "user", "content": "Hi"}], text="Hello")]
  >>> model_outputs(rows, generator="mine")[0]["output"]
  'Hello'
  """
  outputs = []
  for row in answers:
    if row["sample"]:
      continue
    own, said = row.get("row") or {}, [m for m in row["prompt"] if m["role"] != "system"]
    if len(said) > 1:
      raise ValueError(f"prompt {row['prompt_id']} has {len(said)} turns, and no one instruction.")
    output = row["text"] if after is None else row["text"].rpartition(after)[2]
    instruction = own.get("instruction") or said[0]["content"]
    record = {"instruction": instruction, "output": output.strip(), "generator": generator}
    outputs.append(record | {"dataset": str(own.get("dataset", ""))})
  return outputs


def _keys(path: Any, rows: Records) -> tuple[Hashable, ...]:
  """What each row is about. An instruction that occurs again is told apart by its count."""
  if "index" in rows[0]:
    keys: tuple[Hashable, ...] = tuple(int(row["index"]) for row in rows)
    if len(set(keys)) < len(keys):
      raise ValueError(f"{path} has two rows of one index.")
    return keys
  if "instruction" not in rows[0]:
    raise ValueError(f"{path} has no index and no instruction; there are {', '.join(rows[0])}.")
  seen = collections.Counter[str]()
  found = []
  for row in rows:
    seen[row["instruction"]] += 1
    count = seen[row["instruction"]]
    found.append(row["instruction"] if count == 1 else (row["instruction"], count))
  return tuple(found)


def _table(path: Any, rows: Records, judged: Judged) -> list[Mapping[str, Any]]:
  """The rows of another file on the judged instructions, in their order.

  Raises:
    ValueError: an instruction is missing, or the baseline's answers have other lengths.
  """
  by_key = dict(zip(_keys(path, rows), rows, strict=True))
  numbered = isinstance(next(iter(by_key)), int) and not isinstance(judged.keys[0], int)
  keys: Sequence[Hashable] = range(len(judged.keys)) if numbered else judged.keys
  if missing := [key for key in keys if key not in by_key]:
    raise ValueError(
      f"{path} lacks {len(missing)} of the {len(keys)} instructions of {judged.model}, such as "
      f"{missing[0]!r:.60}: is it of another baseline or data set?"
    )
  found = [by_key[key] for key in keys]
  for key, row, length in zip(keys, found, judged.baseline_lengths, strict=True):
    other = row.get("len_baseline")
    if other not in (None, "") and float(other) != length:
      raise ValueError(
        f"{path} is of another baseline: at {key!r:.60} its output has {other} characters, and "
        f"{judged.model} was judged against one of {length:g}."
      )
  return found


def _number(row: Mapping[str, Any], name: str) -> float:
  value = float(row[name])
  if not math.isfinite(value):
    raise ValueError(f"{name} is {row[name]!r}, no number.")
  return value


def _said(why: Exception) -> str:
  return f"there is no {why}." if isinstance(why, KeyError) else str(why)


def _only(path: Any, rows: Records, name: str) -> str | None:
  names = {str(row[name]) for row in rows if row.get(name)}
  if len(names) > 1:
    raise ValueError(f"{path} has several {name}: {', '.join(sorted(names))}.")
  return next(iter(names), None)

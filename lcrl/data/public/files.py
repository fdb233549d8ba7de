"""Finds the files of a set: in a folder, or on the hub, from which it downloads only them."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lcrl.data.public.sets import PublicSet
from lcrl.data.readers import data_ending

_HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def find(
  public: PublicSet, source: str, split: str, patterns: Sequence[str] = (), revision: str = "main"
) -> list[str]:
  """Paths of the set's files in a fixed order.

  Args:
    public: the set.
    source: a file, a folder, or an id on the hub.
    split: replaces {split} in the patterns.
    patterns: of paths inside the source, each of which must match; empty: those of the set.
    revision: of the hub's repository.
  Raises:
    ValueError: no such source, no file that matches, or the hub cannot be reached.
  """
  path = Path(source).expanduser()
  if path.is_file():
    return [str(path)]
  chosen: list[Sequence[str]] = [[pattern] for pattern in patterns] or [public.files]
  groups = [[pattern.replace("{split}", split) for pattern in group] for group in chosen]
  if path.is_dir():
    there = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    return [str(path / name) for name in _matching(there, groups, source)]
  if not _HUB_ID.fullmatch(source):
    raise ValueError(f"there is no file or folder {source}.")
  return _download(source, groups, revision)


def _matching(names: Sequence[str], groups: Sequence[Sequence[str]], source: str) -> list[str]:
  """For each group, the data files that match the first of its patterns which matches any."""
  names = sorted(name for name in names if data_ending(name))
  found: dict[str, None] = {}
  for group in groups:
    matches = (fnmatch.filter(names, pattern) for pattern in group)
    if (first := next(filter(None, matches), None)) is None:
      some = ", ".join(names[:6]) + ", ..." * (len(names) > 6) or "no data files"
      raise ValueError(
        f"{source} has no file like {' or '.join(group)}, but {some}. --files=PATTERN or "
        "--split=NAME chooses others."
      )
    found.update(dict.fromkeys(first))
  return list(found)


def _download(source: str, groups: Sequence[Sequence[str]], revision: str) -> list[str]:
  try:
    import huggingface_hub as hub
  except ImportError:
    raise ValueError(
      f"there is no file or folder {source}, and downloads need huggingface_hub: pip install it, "
      "or give a path in --from."
    ) from None
  with _errors(source):
    names = hub.HfApi().list_repo_files(source, repo_type="dataset", revision=revision)
  found = _matching(names, groups, source)
  options: Any = {"repo_type": "dataset", "revision": revision}
  with _errors(source):
    return [hub.hf_hub_download(source, name, **options) for name in found]


@contextlib.contextmanager
def _errors(source: str) -> Iterator[None]:
  """Makes any error a ValueError: the hub's client raises those of several libraries."""
  try:
    yield
  except Exception as why:
    raise ValueError(
      f"{source} is no file or folder here, and the hub says: {why}. --from=PATH takes files that "
      "you have."
    ) from why

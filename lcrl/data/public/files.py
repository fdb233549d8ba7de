"""Finds the files of a set: in a folder, or on the hub, from which it downloads only them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence
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
    patterns: of paths inside the source; empty: those of the set.
    revision: of the hub's repository.
  Raises:
    ValueError: no such source, no file that matches, or the hub cannot be reached.
  """
  path = Path(source).expanduser()
  if path.is_file():
    return [str(path)]
  patterns = [pattern.replace("{split}", split) for pattern in patterns or public.files]
  if path.is_dir():
    there = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    return [str(path / name) for name in matching(there, patterns, source)]
  if not _HUB_ID.fullmatch(source):
    raise ValueError(f"there is no file or folder {source}.")
  return _download(source, patterns, revision)


def matching(names: Sequence[str], patterns: Sequence[str], source: str) -> list[str]:
  """The data files that match the first pattern which matches any. ValueError if none does."""
  names = sorted(name for name in names if data_ending(name))
  for pattern in patterns:
    if found := [name for name in names if fnmatch.fnmatchcase(name, pattern)]:
      return found
  some = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "") if names else "no data files"
  raise ValueError(
    f"{source} has no file like {' or '.join(patterns)}, but {some}. --files=PATTERN or "
    "--split=NAME chooses others."
  )


def _download(source: str, patterns: Sequence[str], revision: str) -> list[str]:
  try:
    import huggingface_hub as hub
  except ImportError:
    raise ValueError(
      f"there is no file or folder {source}, and downloads need huggingface_hub: pip install it, "
      "or give a path in --from."
    ) from None
  options = {"repo_type": "dataset", "revision": revision}
  names = _ask(source, lambda: hub.HfApi().list_repo_files(source, **options))
  found = matching(names, patterns, source)
  return [
    _ask(source, lambda name=name: hub.hf_hub_download(source, name, **options)) for name in found
  ]


def _ask(source: str, question: Callable[[], Any]) -> Any:
  """Its clients raise errors of several libraries, so that any of them is the hub's answer."""
  try:
    return question()
  except Exception as why:
    raise ValueError(
      f"{source} is no file or folder here, and the hub says: {why}. --from=PATH takes files that "
      "you have."
    ) from why

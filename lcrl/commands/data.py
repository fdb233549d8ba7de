"""Converts a public data set into a file that configs name, and counts what became of each row.

  lcrl-data                         lists the sets
  lcrl-data gsm8k                   data/gsm8k.jsonl, from the hub
  lcrl-data gsm8k --split=test      data/gsm8k_test.jsonl
  lcrl-data dapo_math --from=downloads/dapo --without=data/aime24.jsonl
  lcrl-data conversations --from=mine.json --out=data/mine.jsonl

Prompts that differ only in spaces, case or LaTeX's spacing commands count as the same: later ones
are skipped, and so are those that stand in the files of --without. Answers that the verifier cannot
compare are skipped. A row of another layout is an error that names file and line, and nothing is
written. NAME.counts.json beside the new file holds the counts and where the rows came from.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from lcrl.commands import command
from lcrl.data.public import files, writing
from lcrl.data.public.conversion import Conversion, excluded_keys
from lcrl.data.public.sets import SETS, PublicSet
from lcrl.data.readers import Row, stream
from lcrl.evaluation.progress import to_stderr
from lcrl.evaluation.summaries import write_json
from lcrl.tasks import scorers
from lcrl.tasks.references import References
from lcrl.values import nearest

FLAGS = flags.FLAGS


def listing() -> str:
  """The table of sets."""
  lines = ["Sets, each as `lcrl-data NAME`:"]
  for name, one in SETS.items():
    split = f", split {one.split}" if one.split else ""
    source = f"{one.hub}{split}" if one.hub else "files only (--from)"
    out = f"data/{name}{one.ending}" if one.hub else "--out"
    lines.append(f"\n{name}: {one.about}\n  {source} -> {out}\n  licence: {one.licence}")
  return "\n".join(lines)


def chosen_set(name: str) -> PublicSet:
  if name not in SETS:
    near = nearest(name, SETS) or "."
    raise ValueError(f"there is no set {name!r}{near} There are {', '.join(SETS)}.")
  return SETS[name]


def default_out(name: str, split: str) -> Path:
  """data/gsm8k.jsonl for the default split, data/gsm8k_test.jsonl for another."""
  one = chosen_set(name)
  return Path("data") / f"{name}{f'_{split}' if split != one.split else ''}{one.ending}"


def checked(
  name: str, source: str, split: str, out: str, patterns: Sequence[str], *, force: bool = False
) -> tuple[str, str, Path]:
  """(source, split, out), the set's own where they are empty. ValueError by flag."""
  one = chosen_set(name)
  source, split = source or one.hub, split or one.split
  if split != one.split and not any("{split}" in pattern for pattern in patterns or one.files):
    raise ValueError(f"{name} has no splits, got --split={split}.")
  if not source:
    raise ValueError(f"{name} needs --from=FILE_OR_FOLDER.")
  if not one.hub and not out:
    raise ValueError(f"{name} needs --out=FILE.")
  path = Path(out) if out else default_out(name, split)
  if path.exists() and not force:
    raise ValueError(f"{path} is there already; --force replaces it.")
  return source, split, path


def rows_of(paths: Sequence[str]) -> Iterator[Row]:
  for path in paths:
    to_stderr(f"Reading {path}")
    yield from stream(path)


def convert(
  name: str,
  paths: Sequence[str],
  out: Path,
  *,
  without: Sequence[str] = (),
  sample: int | None = None,
  verifier: str = "math",
) -> Conversion:
  """Writes the file `out` and returns the counts.

  Args:
    name: of the set.
    paths: its files.
    out: the new file.
    without: files of this library's layouts, whose prompts are left out.
    sample: most rows to keep.
    verifier: compares answers, a name in `lcrl.tasks.scorers`.
  """
  with References(getattr(scorers, verifier), 1.0, in_process=0) as references:
    conversion = Conversion(chosen_set(name).convert, references, excluded_keys(without))
    kept = conversion.run(rows_of(paths), sample=sample)
    first = next(kept, None)
    if first is None:
      raise ValueError(f"no row is left.\n{report(conversion)}")
    writing.write(out, itertools.chain([first], kept))
  return conversion


def counts(conversion: Conversion) -> dict[str, Any]:
  """The counts as numbers by name."""
  found = {"read": conversion.read, "kept": conversion.kept}
  found |= {f"skipped_{name}": n for name, n in conversion.skipped.items()}
  return found | {f"changed_{name}": n for name, n in conversion.changed.items()}


def report(conversion: Conversion) -> str:
  """The counts in lines, with the first place of each reason."""
  lines = [f"{name:>40} {n:>9}" for name, n in counts(conversion).items()]
  reasons = [*conversion.skipped, *conversion.changed]
  places = ["", "", *(conversion.first.get(reason, "") for reason in reasons)]
  shown = (f"  first: {place}" if place else "" for place in places)
  return "\n".join(line + place for line, place in zip(lines, shown, strict=True))


def main(argv: Sequence[str]) -> None:
  if len(argv) < 2:
    print(listing())
    return
  if len(argv) > 2:
    raise ValueError(f"one set at a time, got {' '.join(argv[1:])}.")
  name, one, patterns = argv[1], chosen_set(argv[1]), FLAGS.files
  source, split, out = checked(
    name, FLAGS["from"].value or "", FLAGS.split, FLAGS.out, patterns, force=FLAGS.force
  )
  paths = files.find(one, source, split, patterns, FLAGS.revision)
  options = {"without": FLAGS.without, "sample": FLAGS.sample, "verifier": FLAGS.verifier}
  conversion = convert(name, paths, out, **options)
  origin = {"set": name, "from": source, "split": split, "revision": FLAGS.revision, **options}
  write_json(out.with_suffix(".counts.json"), origin | {"files": paths} | counts(conversion))
  print(f"{report(conversion)}\n{out}\nLicence: {one.licence}.")


if __name__ == "__main__":
  flags.DEFINE_string("from", "", "A file, a folder of files, or an id on the hub.")
  flags.DEFINE_string("split", "", "Which split; the default is in the list.")
  flags.DEFINE_list("files", [], "Patterns of files inside the folder or the hub's repository.")
  flags.DEFINE_string("revision", "main", "Revision of the hub's repository.")
  flags.DEFINE_string("out", "", "New file: .jsonl, or .parquet for chats.")
  flags.DEFINE_list("without", [], "Files whose prompts are left out.")
  flags.DEFINE_integer("sample", None, "Keep so many rows, by a hash of the prompt.", lower_bound=1)
  flags.DEFINE_enum("verifier", "math", scorers.__all__, "Compares answers.")
  flags.DEFINE_bool("force", False, "Replace the file.")
  command.run(main, "data")

"""Run folders side by side: compare.csv, compare.md, compare.html and pareto.png.

python -m experiments.compare runs/* --out=compared

A run folder holds a summary.json, or folders that do. Seeds of one reward below the same folder
are averaged; a summary.json above others only sums them up and is left out.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from experiments import command
from lcrl.evaluation import plots, pool, read_summary, tables
from lcrl.evaluation.summaries import Summary

FLAGS = flags.FLAGS

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Accuracy against tokens</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }}
table {{ border-collapse: collapse }}
th, td {{ padding: .3em .8em; text-align: right; border-bottom: 1px solid #ddd }}
th:first-child, td:first-child {{ text-align: left }}
img {{ max-width: 100% }}
</style>
<h1>Accuracy against tokens</h1>
{table}
<p>{note}</p>
<img alt="accuracy against tokens" src="data:image/png;base64,{image}">
</html>
"""
NOTE = "Brackets hold 95 % intervals; * marks runs that no other beats in both."


def _find(folder: Path) -> dict[Path, Summary]:
  """The summaries at or below a folder, without those that have others below them."""
  if not folder.is_dir():
    raise ValueError(f"{folder} is not a folder.")
  homes = sorted(path.parent for path in folder.rglob("summary.json"))
  if not homes:
    raise ValueError(f"{folder} holds no summary.json.")
  leaves = [home for home in homes if not any(home in other.parents for other in homes)]
  return {home: read_summary(home / "summary.json") for home in leaves}


def gather(folders: Sequence[str]) -> dict[str, Summary]:
  """Name -> summary, seeds pooled, in the order of the folders."""
  if not folders:
    raise ValueError("there are no run folders: name at least one.")
  groups: dict[tuple[Path, str], dict[Path, Summary]] = {}
  for folder in map(Path, folders):
    for home, found in _find(folder).items():
      groups.setdefault((folder, found["reward"]), {})[home] = found
  rewards = [reward for _, reward in groups]
  runs: dict[str, Summary] = {}
  for (folder, reward), group in groups.items():
    seeds = [str(found["seed"]) for found in group.values()]
    if len(set(seeds)) < len(seeds):  # a sweep, not seeds of one setting
      runs |= {str(home): found for home, found in group.items()}
    else:
      name = reward if rewards.count(reward) == 1 else f"{folder.name}/{reward}"
      runs[name if name not in runs else str(folder)] = pool(list(group.values()))
  return runs


def compare(folders: Sequence[str], out: Path, *, baseline: str) -> str:
  """Writes the comparison; returns its Markdown."""
  runs = gather(folders)
  out.mkdir(parents=True, exist_ok=True)
  plots.pareto(out / "pareto.png", runs)
  found = tables.rows(runs, baseline=baseline)
  table = tables.overview(found, baseline=baseline)
  image = base64.b64encode((out / "pareto.png").read_bytes()).decode()
  markdown = tables.to_markdown(table)
  page = PAGE.format(table=tables.to_html(table), note=NOTE, image=image)
  (out / "compare.csv").write_text(tables.to_csv(found), encoding="utf-8")
  (out / "compare.html").write_text(page, encoding="utf-8")
  text = f"# Accuracy against tokens\n\n{markdown}\n\n{NOTE}\n\n![pareto](pareto.png)\n"
  (out / "compare.md").write_text(text, encoding="utf-8")
  return markdown


def main(argv: Sequence[str]) -> None:
  print(compare(argv[1:], Path(FLAGS.out), baseline=FLAGS.baseline))
  print(f"\n{FLAGS.out}/compare.html")


if __name__ == "__main__":
  flags.DEFINE_string("out", None, "Folder for the comparison.", required=True)
  flags.DEFINE_string("baseline", "correctness", "The run that others are compared with.")
  command.run(main, "compare")

r"""Length-controlled win rate, WB-Reward and WB-Score from the files of judges.

  lcrl-winrate --answers=out/answers.jsonl --generator=mine --out=judge
  lcrl-winrate --annotations=mine.json,other.json --difficulty=difficulty.csv \
    --gamed=gamed.csv --out=winrate
  lcrl-winrate --annotations=gpt4.json,haiku.json --references=gpt-4,haiku

--answers writes the answers of `lcrl-evaluate` to model_outputs.json, which judges such as
alpaca_eval read. --annotations names what they wrote: the layouts of AlpacaEval 2 (JSON, or CSV
with index, preference, len_output and len_baseline) and of WildBench, with --references for its
pairs and --tags for its means over tasks. Writes winrate.json and winrate.md to --out, and prints
the table.

Without --difficulty and --gamed the fit knows lengths alone ("minimal"); see
`lcrl.evaluation.length_controlled`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from lcrl.commands import command
from lcrl.evaluation import judgements, tables, wildbench
from lcrl.evaluation.answers.report import read_answers
from lcrl.evaluation.length_controlled import (
  extreme_change,
  length_controlled_win_rate,
  win_rate,
  win_rate_against,
)
from lcrl.evaluation.summaries import write_json

FLAGS = flags.FLAGS
SHOWN = ("win rate", "standard error", "LC win rate", "LC standard error", "characters")


def win_rates(
  files: Sequence[str], difficulty: str | None, gamed: str | None, strength: float | None
) -> dict[str, dict[str, Any]]:
  """Model -> its win rates in percent, with the weights of the fit."""
  judged = [judgements.read_judged(file) for file in files]
  for one in judged[1:]:
    judged[0].check_same_instructions(one)
  if len({one.model for one in judged}) < len(judged):
    raise ValueError(f"two files are of one model: {', '.join(one.model for one in judged)}.")
  found, weights = {}, {}
  for one in judged:
    gamma = None if difficulty is None else judgements.read_difficulty(difficulty, one)
    blocks = None if gamed is None else judgements.read_gamed(gamed, one)
    sides = one.preference, one.lengths, one.baseline_lengths
    raw = win_rate(one.preference)
    fit = length_controlled_win_rate(*sides, gamma, blocks, strength=strength)
    weights[one.model] = fit.weights
    found[one.model] = {
      "win rate": raw.rate,
      "standard error": raw.standard_error,
      "discrete win rate": raw.discrete_rate,
      "wins": raw.wins,
      "losses": raw.losses,
      "draws": raw.draws,
      "LC win rate": fit.rate,
      "LC standard error": fit.standard_error,
      "weights": [float(w) for w in fit.weights],  # length, difficulty if used, model
      "strength": fit.strength,
      "extreme change": extreme_change(raw.rate, fit.rate),
      "characters": float(np.mean(one.lengths)),
    }
    if gamma is not None:  # against the models before it, by the fits
      rivals = {name: win_rate_against(fit.weights, w, gamma) for name, w in weights.items()}
      found[one.model]["LC win rate against"] = {n: x for n, x in rivals.items() if n != one.model}
  return found


def read_tags(path: str) -> dict[str, list[str]]:
  """session_id -> the tags of WildBench's data set, from a JSON array or CSV."""
  rows = judgements.read_rows(path)
  name = "session_id" if "session_id" in rows[0] else "id"
  return {str(row[name]): [row["primary_tag"], *(row.get("secondary_tags") or [])] for row in rows}


def wildbench_results(
  files: Sequence[str], references: Sequence[str], tags: str | None, margin: float
) -> dict[str, dict[str, Any]]:
  """Model and reference -> its results; and each model's mean over several references."""
  tagged = None if tags is None else read_tags(tags)
  found: dict[str, dict[str, Any]] = {}
  means: dict[str, list[float]] = {}
  for file in files:
    items = judgements.read_rows(file)
    try:
      if "model_outputs" in items[0]:
        one = wildbench.rewards(items, references, tagged, margin=margin)
        found[f"{one['model']} against {one['reference']}"] = one
        means.setdefault(one["model"], []).append(one["WB-Reward"])
      else:
        one = wildbench.scores(items, tagged)
        found[f"{one['model']}, marks"] = one
    except KeyError as missing:
      raise ValueError(f"{file}: an item has no {missing}.") from None
    except ValueError as why:
      raise ValueError(f"{file}: {why}") from why
  for model, values in means.items():
    if len(values) > 1:
      found[f"{model}, {len(values)} references"] = {"WB-Reward": float(np.mean(values))}
  return found


def write(out: Path, found: Mapping[str, Mapping[str, Any]]) -> str:
  """winrate.json and winrate.md; returns the table."""
  out.mkdir(parents=True, exist_ok=True)
  write_json(out / "winrate.json", found)
  shown = (
    *SHOWN,
    "WB-Reward",
    "WB-Reward, mean over tasks",
    "WB-Score",
    "WB-Score, mean over tasks",
  )
  columns = [name for name in shown if any(name in row for row in found.values())]
  cell = lambda row, name: f"{row[name]:.2f}" if name in row else ""
  body = [[model, *(cell(row, name) for name in columns)] for model, row in found.items()]
  text = tables.to_markdown((["model", *columns], body))
  text += "".join(
    f"\n\n{model}: control of length moved the rate far; look at the fit."
    for model, row in found.items()
    if row.get("extreme change")
  )
  (out / "winrate.md").write_text(f"# Win rates\n\n{text}\n", encoding="utf-8")
  return text


def write_outputs(
  out: Path, answers: str, generator: str, point: str | None, after: str | None
) -> Path:
  """model_outputs.json of an answers file, or of the folder of an evaluation."""
  path = Path(answers)
  if path.is_dir():
    names = ("evaluation_answers.jsonl", "answers.jsonl")
    path = next((path / name for name in names if (path / name).exists()), path / names[1])
  points = read_answers(path)
  if point is None and len(points) > 1:
    raise ValueError(f"name --point, one of {'; '.join(points)}.")
  chosen = next(iter(points)) if point is None else point
  if chosen not in points:
    raise ValueError(f"--point={chosen} is none of {'; '.join(points)}.")
  outputs = judgements.model_outputs(points[chosen], generator=generator, after=after)
  out.mkdir(parents=True, exist_ok=True)
  write_json(out / "model_outputs.json", outputs)
  return out / "model_outputs.json"


def main(_: Any) -> None:
  out = Path(FLAGS.out)
  if (FLAGS.answers is None) == (not FLAGS.annotations):
    raise ValueError("name either --answers or --annotations.")
  if FLAGS.answers is not None:
    if FLAGS.generator is None:
      raise ValueError("name --generator, what judges call the model.")
    print(write_outputs(out, FLAGS.answers, FLAGS.generator, FLAGS.point, FLAGS.after))
    return
  first = judgements.read_rows(FLAGS.annotations[0])[0]
  if "session_id" in first:
    rows = wildbench_results(FLAGS.annotations, FLAGS.references, FLAGS.tags, FLAGS.margin)
  else:
    rows = win_rates(FLAGS.annotations, FLAGS.difficulty, FLAGS.gamed, FLAGS.strength)
  print(write(out, rows))


if __name__ == "__main__":
  flags.DEFINE_string("answers", None, "Answers file or folder of an evaluation, to be judged.")
  flags.DEFINE_string("generator", None, "Name of the model whose answers these are.")
  flags.DEFINE_string("point", None, "Which answers, if the file has several budgets: budget 64.")
  flags.DEFINE_string("after", None, "Text behind which the output begins, such as </think>.")
  flags.DEFINE_list("annotations", None, "Files of judges, one a model, or one a reference.")
  flags.DEFINE_string("difficulty", None, "instruction_difficulty by index or instruction.")
  flags.DEFINE_string(
    "gamed", None, "The gamed baselines: model, index, std_delta_len, preference."
  )
  flags.DEFINE_float("strength", None, "C of the fit; chosen by cross-validation if not given.")
  flags.DEFINE_list("references", [], "Reference models of WildBench's pairs.")
  flags.DEFINE_string("tags", None, "WildBench's data set, for primary_tag and secondary_tags.")
  flags.DEFINE_float("margin", 500, "K characters of WB-Reward; negative: lengths do not matter.")
  flags.DEFINE_string("out", ".", "Folder.")
  command.run(main, "winrate")

"""Runs with one target each beside the dial, from the same start: `make dial`, then

  python -m experiments.studies.dial.singles --workdir=runs/dial

Each shows the policy the digit of one effort, and pays LASER's bonus within the target of that
effort; the last pays for right answers alone. Each takes as many steps as the whole dial. Writes
results.json and README.md beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from absl import flags

from experiments.dial import CONFIG
from lcrl.commands import command
from lcrl.commands.train import keep_programs
from lcrl.evaluation import read_json, write_json
from lcrl.training.loop import train

FLAGS = flags.FLAGS
RESULTS = Path(__file__).with_name("results.json")
PAGE = """# An effort dial on sums

A decoder of 100 k parameters imitates four ways of working, each behind its own digit. Then
[`arithmetic_effort.py`](../../../configs/arithmetic_effort.py) trains it: Nemotron's bonus and
penalty by length over target, with a target for each digit. Sums of two to four numbers of two
digits, modulo 100; {n} held-out sums at each effort, temperature 1, one seed; {device}, commit
{commit}. Accuracy in per cent at mean tokens; 95 % intervals over prompts:

{table}
"A run of its own" starts from the same policy, sees the digit of that effort alone, and earns
LASER's bonus within the same target; the last learns from right answers alone. Each takes as many
steps as the whole dial.

- The longest mean answer of the dial has {range:.2f} times the tokens of its shortest (at the start
  {start_range:.2f}), and it spends {least:.2f} to {most:.2f} tokens for each token asked.
- The highest effort, whose target no answer exceeds, comes to {highest}
  from {highest_before}: it drops the repeated steps.

`make dial`, then `python -m experiments.studies.dial.singles`.
"""
BONUS = 0.5


def single(config: dict[str, Any], level: int, start: Path) -> dict[str, Any]:
  """The dial's config for one effort."""
  effort, tokens = config["budget"]["efforts"][level], config["budget"]["tokens"]
  render = {"fn": "system", "templates": config["task"]["render"]["templates"][level]}
  task = {**config["eval_task"], "render": render}
  del task["efforts"]
  return {
    **config,
    "policy": {"fn": "pretrained", "path": str(start)},
    "budget": {"fn": "fixed", "target": round(effort * tokens), "cap": config["budget"]["cap"]},
    "reward": {"fn": "step_bonus", "alpha": BONUS if effort < 1 else 0.0},
    "task": {**config["task"], "render": render},
    "eval_task": task,
  }


def point(row: dict[str, Any]) -> dict[str, Any]:
  return {name: row[name] for name in ("accuracy", "accuracy_ci", "tokens", "tokens_ci")}


def page(results: dict[str, Any]) -> str:
  cell = lambda x: (
    f"{100 * x['accuracy']:.1f} [{100 * x['accuracy_ci'][0]:.0f}, {100 * x['accuracy_ci'][1]:.0f}] "
    f"at {x['tokens']:.1f}"
  )
  columns = results["efforts"], results["start"], results["dial"], results["singles"].items()
  rows = [
    f"| {effort:g} | {cell(start)} | {cell(end)} | {name}: {cell(own)} |"
    for effort, start, end, (name, own) in zip(*columns, strict=True)
  ]
  head = ["| effort | start | the dial | a run of its own |", "|---|---|---|---|"]
  tokens = [x["tokens"] for x in results["start"]]
  spent = results["curve"]["calibration"]
  return PAGE.format(
    **{name: results[name] for name in ("n", "device", "commit")},
    table="".join(f"{line}\n" for line in [*head, *rows]),
    range=results["curve"]["range"],
    start_range=max(tokens) / min(tokens),
    least=min(spent),
    most=max(spent),
    highest=cell(results["dial"][-1]),
    highest_before=cell(results["start"][-1]),
  )


def main(_) -> None:
  keep_programs()
  folder, config = Path(FLAGS.workdir), command.Experiment(str(CONFIG)).to_dict()
  lines = (folder / "run" / "evaluations.jsonl").read_text(encoding="utf-8").splitlines()
  first, *_, last = map(json.loads, lines)
  efforts, singles = config["budget"]["efforts"], {}
  for level, effort in enumerate(efforts):
    one = single(config, level, folder / "start")
    name = f"LASER {one['budget']['target']}" if effort < 1 else "correctness"
    train(one, folder / name.replace(" ", "_").lower(), method=name)
    singles[name] = point(read_json(folder / name.replace(" ", "_").lower() / "summary.json"))
  about = read_json(folder / "run" / "summary.json")
  results = {
    "n": config["eval"]["prompts"],
    "efforts": efforts,
    "start": [point(row) for row in first["asked"]],
    "dial": [point(row) for row in last["asked"]],
    "singles": singles,
    **{name: about[name] for name in ("device", "commit", "wall_s", "curve")},
  }
  write_json(RESULTS, results)
  RESULTS.with_name("README.md").write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
  flags.DEFINE_string("workdir", "runs/dial", "Folder of `make dial`.")
  command.run(main, "singles")

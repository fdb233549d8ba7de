"""Makes report/ from runs/.

python -m experiments.studies.smollm2_chain_sum.report
"""

from __future__ import annotations

import json
from pathlib import Path

from lcrl.evaluation import read_summary
from lcrl.evaluation.report import write_report

FOLDER = Path(__file__).parent
RUNS = {
  "correctness": "plain/seed0",
  "laser": "laser/seed0",
  "laser, seed 1": "laser/seed1",
  "naive": "naive/seed0",
}
COMMAND = "lcrl-train --config=configs/smollm2_chain_sum_laser.py --workdir=runs/a"


def main() -> None:
  folders = {name: FOLDER / "runs" / "token_mean" / run for name, run in RUNS.items()}
  curves = {}
  for name, folder in folders.items():
    lines = [json.loads(line) for line in (folder / "evaluations.jsonl").read_text().splitlines()]
    curves[name] = {key: [line[key] for line in lines] for key in ("step", "accuracy", "tokens")}
  write_report(
    FOLDER / "report",
    {name: read_summary(folder / "summary.json") for name, folder in folders.items()},
    title="SmolLM2-135M on one-digit sums, 100 steps of GRPO",
    command=COMMAND,
    curves=curves,
  )


if __name__ == "__main__":
  main()

"""One policy with a dial: a digit before the problem says how much effort the answer is worth.

  python -m experiments.dial --seed=0 --workdir=runs/dial

A small decoder imitates four ways of working, each behind its own digit: three operands a step,
two, one, and one with half of the steps repeated. Then configs/arithmetic_effort.py trains it with
a price of a token that falls with the effort, in the same loop as any run. Its report has the curve
of accuracy against tokens over the efforts.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import flags

from experiments import testbed
from experiments.demo import imitated, teacher
from lcrl import policies
from lcrl.commands import command
from lcrl.commands.train import keep_programs
from lcrl.tasks.sums import Sums
from lcrl.training.loop import train
from lcrl.types import PyTree

FLAGS = flags.FLAGS
CONFIG = Path(__file__).parent.parent / "configs" / "arithmetic_effort.py"
SUMS = Sums(digits=2, modulus=100)
LEVELS = 4
# By level: chance that a step is repeated, and weights of one, two or three operands a step.
RECHECK = (0.0, 0.0, 0.0, 0.5)
SIZES = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (1.0, 0.0, 0.0))
POLICY = policies.make(policies.tiny(vocab_size=SUMS.vocab_size))


def imitate(seed: int, *, steps: int, batch: int = 64) -> PyTree:
  """The params from which the training starts."""
  ways: Any = dict(recheck=RECHECK, sizes=SIZES, levels=LEVELS)
  by = teacher(steps)
  course = jax.jit(partial(testbed.imitate, POLICY, by, sums=SUMS, batch=batch, **ways))
  return imitated(POLICY, course, seed, steps=steps, of=10)


def dial(workdir: Path, *, seed: int, steps: int, config: dict) -> dict:
  """Imitates, trains, and returns the summary of the run in `workdir`/run."""
  start = workdir / "start"
  if not (start / "config.json").is_file():
    policies.save(start, POLICY, imitate(seed, steps=steps))
  config = {**config, "seed": seed, "policy": {"fn": "pretrained", "path": str(start)}}
  return train(config, workdir / "run", method="effort dial")


def main(_) -> None:
  keep_programs()
  mode = ":smoke" if FLAGS.smoke else ""
  config = command.Experiment(f"{CONFIG}{mode}").to_dict()
  folder = Path(FLAGS.workdir)
  dial(folder, seed=FLAGS.seed, steps=4 if FLAGS.smoke else 1500, config=config)
  print(f"The report, with the curve of the efforts, is {folder / 'run' / 'report.md'}.")


if __name__ == "__main__":
  flags.DEFINE_integer("seed", 0, "Of the policy, the data and sampling.")
  flags.DEFINE_string("workdir", "runs/dial", "Folder of the results; made if absent.")
  flags.DEFINE_bool("smoke", False, "A few steps of each phase, as a test.")
  command.run(main, "dial")

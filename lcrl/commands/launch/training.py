"""The command that every machine runs: lcrl-train as one of several processes."""

from __future__ import annotations

from collections.abc import Sequence

from lcrl.commands.command import find


def training_command(
  arguments: Sequence[str], *, python: str = "python", remote: bool = False
) -> list[str]:
  """The command for these arguments of lcrl-train.

  Args:
    arguments: what stands after "--" on the command line.
    python: the interpreter on the machines.
    remote: whether the machines share no disk, so that the workdir must be on an object store.

  Raises:
    ValueError: --config or --workdir is missing, or cannot be used by several machines.
  """
  given = dict(part.lstrip("-").partition("=")[::2] for part in arguments)
  if missing := [name for name in ("config", "workdir") if not given.get(name)]:
    raise ValueError(
      f"name --{missing[0]}=... after a lone --, with other arguments of lcrl-train."
    )
  find(given["config"])
  workdir = given["workdir"]
  if remote and not workdir.startswith("gs://"):
    raise ValueError(f"--workdir={workdir}: these machines share no disk, name a folder on gs://.")
  return [python, "-m", "lcrl.commands.train", "--multihost", *arguments]

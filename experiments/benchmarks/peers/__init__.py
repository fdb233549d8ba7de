"""The same work by other libraries, each in a process of its own: neither its memory nor what it
compiled mixes with what is measured here, and it cannot stop a measurement.

A module a library; its PARTS say what of the work it does. From the package index, never vendored:
a library that is not installed is an error in the result.

python -m experiments.benchmarks.peers tunix '{"part": "sampling", "shape": "laptop"}'
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from absl import flags

from experiments.benchmarks import shapes
from lcrl.policies.config import Config

FLAGS = flags.FLAGS
LIBRARIES = ("tunix", "transformers")


class Job(NamedTuple):
  """Work for a peer and how it does it."""

  part: str  # step, sampling, update or log_probs
  shape: str = "smollm2-135m"
  prompts: int = 64
  group: int = 8
  asked: int = 96
  limit: int = 96
  heavy: bool = False  # responses have unequal lengths
  mean: float | None = None  # of these, before the limit cuts them; None: a quarter of the limit
  slots: int = 512  # rows that decode at once, of unequal lengths
  layers: int | None = None  # fewer than the shape has
  dtype: str = "bfloat16"
  micro: int = 8  # prompts that go through an update together
  remat: bool = False  # layers are computed again on the way back
  compile: bool = False  # torch.compile, and a static cache for `generate`
  repeats: int = 3
  tokens: int = 8192  # of log_probs, as the next two
  hidden: int = 4096
  vocab: int = 151_936

  @property
  def work(self) -> shapes.Work:
    sizes = self.prompts, self.group, self.asked, self.limit
    return shapes.Work(*sizes, self.heavy, self.mean)

  @property
  def config(self) -> Config:
    fewer = {"layers": self.layers} if self.layers else {}
    return shapes.config(self.shape, dtype=self.dtype, **fewer)

  @property
  def how(self) -> dict[str, Any]:
    """The settings that are its own."""
    return {name: getattr(self, name) for name in ("dtype", "micro", "remat", "compile")}


class Ids:
  """A tokenizer whose text is the numbers of the tokens. No token ends a response."""

  def __init__(self, vocab: int):
    self.vocab = vocab

  def encode(self, text: str, **_) -> list[int]:
    return [int(word) for word in text.split()]

  def decode(self, ids, **_) -> str:
    return " ".join(map(str, ids))

  def bos_id(self) -> int:
    return 0  # as much as none: it is not put before a prompt

  def eos_id(self) -> int:
    return self.vocab + 7

  def pad_id(self) -> int:
    return 0


def ask(part: str, **changes: Any) -> dict[str, Any] | None:
  """What the peer that the flags name needs for the work that they ask for, with these changes;
  printed. None where they name none. To be called before JAX takes the device's memory."""
  if FLAGS.peer is None:
    return None
  how: dict[str, Any] = {
    "micro": FLAGS.micro,
    "remat": FLAGS.peer_remat,
    "compile": FLAGS.peer_compile,
  }
  fields: dict[str, Any] = {name: FLAGS[name].value for name in Job._fields if name in FLAGS}
  job = Job(**(fields | how | {"part": part} | changes))
  found = in_a_process(FLAGS.peer, job, timeout=FLAGS.peer_timeout)
  print(json.dumps(found), flush=True)
  return found


def in_a_process(library: str, job: Job, *, timeout: float) -> dict[str, Any]:
  """What the library needs for the job, or its error; all that it says of that to stderr."""
  command = [sys.executable, "-m", __name__, library, json.dumps(job._asdict())]
  label = {"peer": library, "part": job.part}
  with tempfile.TemporaryFile("w+") as errors:
    try:
      done = subprocess.run(
        command,
        env=os.environ | ({"JAX_PLATFORMS": "cpu"} if library == "transformers" else {}),
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        timeout=timeout,
        check=True,
      )
      return label | json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
      return label | {"error": f"Not done after {timeout} seconds."}
    except (subprocess.CalledProcessError, IndexError, json.JSONDecodeError) as error:
      errors.seek(0)
      said = errors.read().strip()
      print(said, file=sys.stderr, flush=True)
      named = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", said, re.MULTILINE) or [str(error)]
      return label | {"error": named[-1][:300]}


def ratios(peer: dict[str, Any] | None, own: dict[str, Any], names: tuple[str, ...]) -> dict:
  """How many times as much of each the peer takes, of what both have.

  >>> ratios({"seconds": 3.0, "peak_gib": None}, {"seconds": 2.0, "peak_gib": 1.0},
  ...        ("seconds", "peak_gib"))
  {'seconds': 1.5}
  """
  if peer is None:
    return {}
  return {name: peer[name] / own[name] for name in names if peer.get(name) and own.get(name)}


def define():
  """The flags that say which peer does the work, and how."""
  flags.DEFINE_enum("peer", None, LIBRARIES, "another library, on the same work")
  flags.DEFINE_integer("peer_timeout", 240, "seconds that it may take")
  flags.DEFINE_integer("micro", 8, "prompts that go through its update together")
  flags.DEFINE_bool("peer_remat", False, "it computes layers again on the way back")
  flags.DEFINE_bool("peer_compile", False, "torch.compile, and a static cache for `generate`")

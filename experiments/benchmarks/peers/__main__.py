"""One part of one peer, in this process: prints a JSON line. See the package."""

import importlib
import json
import sys

from experiments.benchmarks.peers import LIBRARIES, Job


def main(library: str, asked: str) -> None:
  if library not in LIBRARIES:
    raise ValueError(f"Unknown peer {library!r}: {', '.join(LIBRARIES)}.")
  job = Job(**json.loads(asked))
  parts = importlib.import_module(f"experiments.benchmarks.peers.{library}").PARTS
  print(json.dumps({**parts[job.part](job), "how": job.how}), flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])

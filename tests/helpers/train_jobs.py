"""Trains jobs one after the other, as one of two processes, and prints what it saw of each.

A job has a config, a workdir and, where it is stopped, the number of a signal and [process, step]
of those that get it. Its record has `prefetched`, whether each step found rollouts that the step
before had started, and `verified`, the number of responses that this process has verified.
"""

import contextlib
import json
import os
import sys
from unittest import mock

from lcrl.tasks.verify import Verifier
from lcrl.training.rl.queue import RolloutQueue
from lcrl.training.workdir import Workdir


@contextlib.contextmanager
def watched():
  """The record of what runs do meanwhile."""
  record = {"prefetched": [], "verified": 0}
  take, submit = RolloutQueue.take, Verifier.submit

  def taking(queue, state):
    record["prefetched"].append(queue.prefetched is not None)
    return take(queue, state)

  def submitting(verifier, items):
    record["verified"] += len(items)
    return submit(verifier, items)

  with (
    mock.patch.object(RolloutQueue, "take", taking),
    mock.patch.object(Verifier, "submit", submitting),
  ):
    yield record


@contextlib.contextmanager
def signalled(number, at, process):
  """Sends this process a signal after the steps of `at` that are its own."""
  learned = Workdir.learned

  def learning(out, step, *args):
    learned(out, step, *args)
    if [process, step] in at:
      os.kill(os.getpid(), number)

  with mock.patch.object(Workdir, "learned", learning):
    yield


if __name__ == "__main__":
  from lcrl.commands.train import join
  from lcrl.training import loop

  address, process, jobs = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
  join(address, 2, process)
  for job in jobs:
    with watched() as record, signalled(job.get("signal"), job.get("at", ()), process):
      loop.train(job["config"], job["workdir"])
    print(json.dumps(record), flush=True)

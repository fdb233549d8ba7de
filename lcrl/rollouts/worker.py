"""The rollout worker: renders prompts, samples responses, and has them verified as they end.

The devices sample; one thread decodes the responses that have ended; the verifier's processes score
them; the caller goes on meanwhile.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lcrl.data.rows import render_rows
from lcrl.mesh import local_rows, to_global, to_local
from lcrl.protocols import Sampler, Tokenizer, Verifier
from lcrl.rollouts.grader import VERDICTS, GradedPiece, LocalPrompts, RolloutGrader
from lcrl.sampling.pages import PoolUse
from lcrl.tasks.task import Prompt, Task
from lcrl.types import Budget, Rollouts


class Interval(NamedTuple):
  """Seconds by `time.perf_counter`."""

  start: float
  end: float


@dataclasses.dataclass(frozen=True)
class RolloutWorker:
  """Turns prompts into verified rollouts; nothing in it changes during a run."""

  task: Task
  tokenizer: Tokenizer
  engine: Sampler
  verifier: Verifier
  mesh: Mesh
  prompt_limit: int  # tokens, the forced prefix included

  @property
  def pad_id(self) -> int | None:
    """The padding token, of the engine if it names one, else of the tokenizer. None: neither does,
    and no control forces tokens behind a response."""
    pad_id = getattr(self.engine, "pad_id", None)
    return getattr(self.tokenizer, "pad_id", None) if pad_id is None else pad_id

  @property
  def end_ids(self) -> Sequence[int]:
    """The tokens that end a response: of the engine if it names them, else of the tokenizer."""
    return getattr(self.engine, "end_ids", self.tokenizer.end_ids)

  def render(
    self, prompts: Sequence[Prompt], index: np.ndarray, budget: Budget | Any
  ) -> LocalPrompts:
    """The prompts of this process as rows of tokens.

    Args:
      prompts: all B of them, on every process.
      index: [B] positions in the data stream, which randomness folds in.
      budget: numpy [B, G] each, on every process.
    """
    local = local_rows(self.mesh, len(prompts))
    chosen = [prompts[i] for i in local]
    budget = jax.tree.map(lambda x: np.asarray(x)[local], budget)
    limit = self.prompt_limit
    rows = render_rows(self.task, self.tokenizer, chosen, budget, index[local], limit=limit)
    return LocalPrompts(chosen, rows, budget)

  def start(self, params: Any, local: LocalPrompts, key: jax.Array) -> PendingRollouts:
    """Starts to sample and verify, and returns without waiting.

    Args:
      params: of the policy, wherever they lie (they may still be computed), or the sampler's copy
        (`engine.prepared`).
      local: this process's prompts.
      key: of this step.
    """
    grader = RolloutGrader(self, params, local.prompts, local.rows, key)
    reader, pieces, known, pool = ThreadPoolExecutor(1), [], None, None
    # The devices run programs in order. A copy of the smallest parameter is ready when the work
    # before this round is done: that is when sampling starts. The copy, because the update may
    # donate the parameters themselves.
    smallest = sorted(jax.tree.leaves(params), key=np.size)[:1]
    started = reader.submit(_time_when_ready, [jnp.copy(leaf) for leaf in smallest])
    for sampled, done, *use in self.engine.stream(params, local.rows, local.budget, key):
      none: Any = None  # log-probs and experts are large, and nothing reads them here
      read = dataclasses.replace(sampled, sampler_log_probs=none, signals={})
      pieces.append(reader.submit(grader.grade_piece, read, done, known))
      known, pool = done, use[0] if use else None
    reader.shutdown(wait=False)
    return PendingRollouts(grader, sampled, started, pieces, pool)


@dataclasses.dataclass(frozen=True, eq=False)
class PendingRollouts:
  """Rollouts that are being sampled and verified."""

  grader: RolloutGrader
  sampled: Rollouts  # arrays that the devices still compute, without verdicts
  started: Future[float]  # when sampling started, by time.perf_counter
  pieces: Sequence[Future[GradedPiece]]  # every rollout that this process verifies is in one
  pool: PoolUse | None = None  # of a sampler with pages, still on the devices

  def result(self) -> tuple[Rollouts, RolloutGrader]:
    """Waits for the rollouts and their verdicts: global arrays, and the grader that verifies them
    again if they are revised."""
    return self.timed_result()[:2]

  def timed_result(self) -> tuple[Rollouts, RolloutGrader, Interval]:
    """`result`, and when sampling started and ended."""
    *_, last = pieces = [piece.result() for piece in self.pieces]
    index = np.concatenate([piece.positions for piece in pieces])
    verdicts = [verdict for piece in pieces for verdict in piece.verdicts.result()]
    blank = {name: to_local(getattr(self.sampled, name)) for name in VERDICTS}
    graded = self.grader.exchanged(index, verdicts)
    fields = to_global(self.grader.worker.mesh, self.grader.fields(blank, *graded))
    interval = Interval(self.started.result(), last.sampled_at)
    return dataclasses.replace(self.sampled, **fields), self.grader, interval


def _time_when_ready(arrays: list[jax.Array]) -> float:
  jax.block_until_ready(arrays)
  return time.perf_counter()

"""The rollout grader: decodes the responses of a round, verifies them, and reads their signals.

A revision (`lcrl.training.rl.revise`) changes responses and asks it to verify them again. All that
it holds and returns is this process's share: b prompts, numpy arrays.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from lcrl import hosts
from lcrl.data.rows import Rows
from lcrl.mesh import sharing_processes, to_local
from lcrl.sampling.core import row_keys
from lcrl.tasks.task import Prompt, Response
from lcrl.tasks.verify import Verdict
from lcrl.types import Budget, Outcome, Rollouts

if TYPE_CHECKING:
  from lcrl.rollouts.worker import RolloutWorker

LocalRollouts: TypeAlias = Any  # Rollouts of this process only, as numpy arrays
VERDICTS = ("scores", "outcome", "correct")  # the fields that the verifier fills
# Folded into a round's key, for randomness that is not the sampling of its rollouts.
CONTINUATION_STREAM, INDEX_STREAM = 2**31 - 1, 2**31 - 2


class LocalPrompts(NamedTuple):
  """This process's share of the prompts of a round, rendered; b of them."""

  prompts: Sequence[Prompt]
  rows: Rows
  budget: Budget  # numpy [b, G] each


class GradedPiece(NamedTuple):
  """Rollouts of this process that ended together."""

  sampled_at: float  # by time.perf_counter
  positions: np.ndarray  # [n, 2], prompt and rollout, of those that this process verifies
  verdicts: Future[list[Verdict]]


@dataclasses.dataclass(frozen=True, eq=False)
class RolloutGrader:
  """Verifies one round of rollouts as often as they are revised."""

  worker: RolloutWorker
  params: Any
  prompts: Sequence[Prompt]  # b of them
  rows: Rows  # what was sampled from
  key: jax.Array
  decoded: dict[tuple[int, int], Response] = dataclasses.field(default_factory=dict)
  # Tokens that a control forced behind the response when it was sampled.
  tails: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)

  @property
  def starts(self) -> np.ndarray:
    """[b, G] positions where responses start in their rows, forced prefixes included."""
    rows = self.rows
    lengths = rows.lengths if rows.train_lengths is None else rows.train_lengths
    return np.asarray(lengths) - np.asarray(rows.forced)

  def responses(self, r: LocalRollouts) -> list[list[Response]]:
    """[b][G]: everything after the prompt up to the last token that counts, and what a control
    forced behind it without counting, unless a revision has cut the response."""
    prompts, group = r.lengths.shape
    flat = self._decode(r.tokens, r.counted, np.argwhere(np.ones((prompts, group), bool)))
    return [flat[b * group : (b + 1) * group] for b in range(prompts)]

  def _decode(self, tokens: Any, mask: Any, index: np.ndarray) -> list[Response]:
    """The responses at index [n, 2]; those that have not changed are not decoded again."""
    at, tokenizer = tuple(index.T), self.worker.tokenizer
    tokens, mask, starts = tokens[at], mask[at], self.starts[at]
    ends = _last_set(mask, starts)
    pad = self.worker.pad_id
    written = ends if pad is None else _last_set(tokens != pad, starts)
    tails = np.maximum(written - ends, 0)
    keys = [(b, g) for b, g in index.tolist()]
    for key, tail in zip(keys, tails.tolist(), strict=True):
      self.tails.setdefault(key, tail)
    ends = ends + np.where(tails == [self.tails[key] for key in keys], tails, 0)
    responses = []
    rows = zip(keys, tokens, mask, starts.tolist(), ends.tolist(), strict=True)
    for key, row, counts, start, end in rows:
      ids = row[start:end].tolist()
      ended = bool(ids) and ids[-1] in self.worker.end_ids
      more = self.prompts[key[0]].row or {}
      response = Response(ids, counts[start:end].tolist(), ended, tokenizer.decode, more)
      if self.decoded.get(key) != response:
        self.decoded[key] = response
      responses.append(self.decoded[key])
    return responses

  def submit(
    self, tokens: Any, mask: Any, index: np.ndarray
  ) -> tuple[np.ndarray, Future[list[Verdict]]]:
    """The part of the rollouts at index [n, 2] that this process verifies, and their verdicts, to
    come. Processes that hold the same rows take turns, and `exchanged` gives each all verdicts."""
    responses = self._decode(tokens, mask, index)
    among, (_, group) = sharing_processes(self.worker.mesh), self.starts.shape
    turns = (index[:, 0] * group + index[:, 1]) % len(among)
    own = np.flatnonzero(turns == among.index(jax.process_index()))
    pairs = zip(own.tolist(), index[own, 0].tolist(), strict=True)
    items = [(responses[i].text, self.prompts[b]) for i, b in pairs]
    return index[own], self.worker.verifier.submit(items)

  def exchanged(
    self, index: np.ndarray, verdicts: Sequence[Verdict]
  ) -> tuple[np.ndarray, Sequence[Verdict]]:
    """Index [n, 2] and verdicts, with those of the processes that hold the same rows.

    A time-out may strike on one host only, so that the verdict of one process must hold for all.
    """
    among = sharing_processes(self.worker.mesh)
    if len(among) == 1:
      return index, verdicts
    pairs = zip(index.tolist(), verdicts, strict=True)
    own = [[*at, verdict.score, int(verdict.outcome)] for at, verdict in pairs]
    rows = [row for part in hosts.gather("verdicts", own, among) for row in part]
    at = np.array([row[:2] for row in rows], int).reshape(-1, 2)
    return at, [Verdict(score, Outcome(outcome)) for _, _, score, outcome in rows]

  def grade_piece(self, r: Rollouts, done: Any, known: Any) -> GradedPiece:
    """Waits until the global arrays are there, then verifies the responses that are new in them.

    Args:
      r: the rollouts as they stand after this piece of the stream.
      done: [B, G] bool, the rollouts that have ended.
      known: [B, G] bool, those that had ended one piece earlier; None: none had.
    """
    new = to_local(done) if known is None else to_local(done) & ~to_local(known)
    sampled_at, index = time.perf_counter(), np.argwhere(new)
    if not len(index):
      return GradedPiece(sampled_at, index, self.worker.verifier.submit([]))
    local = jax.tree.map(to_local, r)
    return GradedPiece(sampled_at, *self.submit(local.tokens, local.counted, index))

  def fields(
    self, rollouts: Any, index: np.ndarray, verdicts: Sequence[Verdict]
  ) -> dict[str, np.ndarray]:
    """The fields VERDICTS, [b, G] each, with the verdicts on index [n, 2] written into them."""
    at = tuple(index.T)
    scores, outcome, correct = (np.array(rollouts[name]) for name in VERDICTS)
    scores[at] = [verdict.score for verdict in verdicts]
    outcome[at] = [verdict.outcome for verdict in verdicts]
    correct[at] = [verdict.correct for verdict in verdicts]
    return dict(zip(VERDICTS, (scores, outcome, correct), strict=True))

  def reverify(self, r: LocalRollouts, changed: np.ndarray) -> LocalRollouts:
    """`r` with new verdicts where `changed` [b, G]."""
    index = np.argwhere(changed)
    own, verdicts = self.submit(r.tokens, r.counted, index)
    graded = self.exchanged(own, verdicts.result())
    return dataclasses.replace(r, **self.fields(vars(r), *graded))

  def signals(self, r: LocalRollouts) -> dict[str, np.ndarray]:
    """The task's signals of the responses, [b, G] each."""
    source = self.worker.task.signals
    if source is None:
      return {}
    read = [[source.read(response) for response in group] for group in self.responses(r)]
    dtypes = {int: np.int32, bool: np.bool_, float: np.float32}
    return {
      name: np.array([[one[name] for one in group] for group in read], dtypes[kind])
      for name, kind in source.dtypes.items()
    }

  def random_index(self, below: int) -> np.ndarray:
    """[b, G] int, below `below`; the same for a rollout whichever process holds it."""
    index, group = jnp.asarray(self.rows.index), self.starts.shape[1]
    keys = row_keys(jax.random.fold_in(self.key, INDEX_STREAM), index, group)
    return np.asarray(jax.vmap(jax.vmap(lambda k: jax.random.randint(k, (), 0, below)))(keys))

  def success_rate(
    self, r: LocalRollouts, kept: np.ndarray, *, force: str, samples: int, cap: int
  ) -> np.ndarray:
    """[b, G] float32, the share of right answers among those of `continued`."""
    right = to_local(self.continued(r, kept, force=force, samples=samples, cap=cap).correct)
    return right.reshape(*self.starts.shape, samples).mean(-1, dtype=np.float32)

  def continued(
    self, r: LocalRollouts, kept: np.ndarray, *, force: str, samples: int, cap: int
  ) -> Rollouts:
    """Each response broken off and continued, [B, G * samples]; only what is drawn then counts.

    The randomness is that of the round: two calls differ only by the tokens that are kept.

    Args:
      r: the rollouts.
      kept: [b, G] tokens of the response to keep, forced ones included.
      force: text put behind them, such as the end of thinking.
      samples: continuations of each.
      cap: tokens of a continuation, at most.
    """
    worker = self.worker
    ending = worker.tokenizer.encode(force)
    limit = worker.prompt_limit + worker.engine.max_tokens + len(ending)
    starts, kept = self.starts.repeat(samples, -1), np.asarray(kept, np.int32).repeat(samples, -1)
    tokens = np.full((*starts.shape, limit), worker.tokenizer.pad_id, np.int32)
    for b, g in np.ndindex(*starts.shape):
      end = starts[b, g] + kept[b, g]
      tokens[b, g, :end] = r.tokens[b, g // samples, :end]
      tokens[b, g, end : end + len(ending)] = ending
    forced = kept + np.int32(len(ending))
    rows = dataclasses.replace(
      self.rows,
      tokens=tokens,
      lengths=starts + forced,
      forced=forced,
      train_tokens=None,
      train_lengths=None,
      counts=None,
    )
    caps: Any = np.full(starts.shape, cap, np.int32)
    local = LocalPrompts(self.prompts, rows, Budget(caps, caps, caps * 0))
    key = jax.random.fold_in(self.key, CONTINUATION_STREAM)
    continued, _ = worker.start(self.params, local, key).result()
    return continued


def _last_set(flags: np.ndarray, least: np.ndarray) -> np.ndarray:
  """[n], the position behind the last flag of each row of [n, T], and no less than `least` [n]."""
  behind = np.where(flags.any(-1), flags.shape[-1] - flags[..., ::-1].argmax(-1), 0)
  return np.maximum(behind, least)

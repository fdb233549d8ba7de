"""From prompts to verified rollouts: render, sample, read the text, verify. Training and evaluation
both go through here."""

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

from lcrl.data.rows import Rows, render_rows
from lcrl.mesh import local_rows, to_global, to_local
from lcrl.sampling.core import row_keys
from lcrl.tasks.task import Prompt, Response, Task
from lcrl.tasks.verify import Verdict
from lcrl.types import Budget, Rollouts

Share = Any  # Rollouts of this process only, numpy arrays
VERDICTS = ("scores", "outcome", "correct")  # fields that the verifier fills
ANSWERED, CHOSEN = 2**31 - 1, 2**31 - 2  # folded into a round's key for the referee's randomness


@dataclasses.dataclass(frozen=True)
class Player:
  """What turns prompts into verified rollouts; nothing in it changes during a run."""

  task: Task
  tokenizer: Any  # encode, decode, render, end_ids, pad_id
  engine: Any  # sampling.engine
  verifier: Any  # tasks.verify.Verifier
  mesh: Mesh
  prompt_limit: int  # tokens, the forced prefix included

  @property
  def pad_id(self) -> int | None:
    """What stands behind responses, as the engine says, or else the tokenizer; None: neither does,
    and no control of theirs forces tokens."""
    own = getattr(self.engine, "pad_id", None)
    return getattr(self.tokenizer, "pad_id", None) if own is None else own

  def play(
    self,
    params: Any,
    prompts: Sequence[Prompt],
    index: np.ndarray,
    budget: Budget,
    key: jax.Array,
  ) -> tuple[Rollouts, Referee]:
    """Verified rollouts of all `prompts` as global arrays, and who judges them if they change.

    Args:
      params: of the policy, wherever they lie, or `engine.prepared` from them.
      prompts: all B of them, on every process.
      index: [B] positions in the data stream, which randomness folds in.
      budget: numpy, [B, G] each, on every process.
      key: of this step.
    """
    return self.launch(params, prompts, index, budget, key).finish()

  def launch(
    self,
    params: Any,
    prompts: Sequence[Prompt],
    index: np.ndarray,
    budget: Budget,
    key: jax.Array,
  ) -> Playing:
    """`play` begun: the devices have their work, and whatever ends is read and verified."""
    mine = local_rows(self.mesh, len(prompts))
    own = [prompts[i] for i in mine]
    budget = jax.tree.map(lambda x: np.asarray(x)[mine], budget)
    rows = render_rows(self.task, self.tokenizer, own, budget, index[mine], limit=self.prompt_limit)
    return self.launch_rows(params, own, rows, budget, key)

  def launch_rows(
    self, params: Any, prompts: Sequence[Prompt], rows: Rows, budget: Budget, key: jax.Array
  ) -> Playing:
    """`launch` of this process's own prompts, rows and budgets."""
    referee = Referee(self, params, prompts, rows, key)
    given = rows, budget
    if jax.process_count() > 1:
      given = to_global(self.mesh, given)
    reader, pieces, known = ThreadPoolExecutor(1), [], None
    least = sorted(jax.tree.leaves(params), key=np.size)[:1]
    began = reader.submit(_when_there, [jnp.copy(leaf) for leaf in least])
    for sampled, done in self.engine.stream(params, *given, key):
      piece = reader.submit(referee.ended, sampled.tokens, sampled.mask, done, known)
      pieces.append(piece)
      known = done
    reader.shutdown(wait=False)
    return Playing(referee, sampled, began, pieces)

  def play_rows(self, *args: Any) -> tuple[Rollouts, Referee]:
    """`play` of this process's own prompts, rows and budgets."""
    return self.launch_rows(*args).finish()


class Piece(NamedTuple):
  """Rollouts of this process that ended together."""

  arrived: float  # by time.perf_counter
  places: np.ndarray  # [n, 2]
  verdicts: Future[list[Verdict]]


@dataclasses.dataclass(frozen=True, eq=False)
class Playing:
  """Rollouts that the devices sample, a thread reads and workers verify, while the host goes on."""

  referee: Referee
  sampled: Rollouts
  began: Future[float]  # when the least of the parameters was there, by time.perf_counter
  pieces: Sequence[Future[Piece]]  # all rollouts are in one of them

  def finish(self) -> tuple[Rollouts, Referee]:
    """Waits for them and their verdicts; what `Player.play` gives."""
    *_, last = pieces = [piece.result() for piece in self.pieces]
    referee = dataclasses.replace(self.referee, sampled=(self.began.result(), last.arrived))
    places = np.concatenate([piece.places for piece in pieces])
    found = [verdict for piece in pieces for verdict in piece.verdicts.result()]
    blank = {name: to_local(getattr(self.sampled, name)) for name in VERDICTS}
    verdicts = to_global(referee.player.mesh, referee.put(blank, places, found))
    return dataclasses.replace(self.sampled, **verdicts), referee


def _behind(flags: np.ndarray, least: np.ndarray) -> np.ndarray:
  """[n], the place behind the last flag of each row of [n, T]; `least` [n] where there is none."""
  behind = np.where(flags.any(-1), flags.shape[-1] - flags[..., ::-1].argmax(-1), 0)
  return np.maximum(behind, least)


def _when_there(arrays: list[jax.Array]) -> float:
  jax.block_until_ready(arrays)
  return time.perf_counter()


@dataclasses.dataclass(frozen=True, eq=False)
class Referee:
  """Judges one round of rollouts as often as they are revised, reads them, has them continued.

  Everything here is this process's share: b prompts, numpy arrays.
  """

  player: Player
  params: Any
  prompts: Sequence[Prompt]  # b of them
  rows: Rows  # what was sampled from
  key: jax.Array
  seen: dict[tuple[int, int], Response] = dataclasses.field(default_factory=dict)  # decoded texts
  tails: dict[tuple[int, int], int] = dataclasses.field(default_factory=dict)  # forced at the end
  sampled: tuple[float, float] = (0.0, 0.0)  # from when until when, by time.perf_counter

  @property
  def starts(self) -> np.ndarray:
    """[b, G] where responses begin in their rows, forced prefixes included."""
    rows = self.rows
    lengths = rows.lengths if rows.train_lengths is None else rows.train_lengths
    return np.asarray(lengths) - np.asarray(rows.forced)

  def responses(self, r: Share) -> list[list[Response]]:
    """[b][G]: everything after the prompt up to the last token that counts, and what a control
    forced behind it, unless a revision has cut the response."""
    prompts, group = r.lengths.shape
    found = self._read(r.tokens, r.mask, np.argwhere(np.ones((prompts, group), bool)))
    return [found[b * group : (b + 1) * group] for b in range(prompts)]

  def _read(self, tokens: np.ndarray, mask: np.ndarray, places: np.ndarray) -> list[Response]:
    """The responses at places [n, 2]."""
    at, words = tuple(places.T), self.player.tokenizer
    tokens, mask, starts = tokens[at], mask[at], self.starts[at]
    ends = _behind(mask, starts)
    pad = self.player.pad_id
    written = ends if pad is None else _behind(tokens != pad, starts)
    tails = np.maximum(written - ends, 0)
    for place, tail in zip(map(tuple, places.tolist()), tails.tolist(), strict=True):
      self.tails.setdefault(place, tail)  # as it was sampled
    sampled = [self.tails[place] for place in map(tuple, places.tolist())]
    ends = ends + np.where(tails == sampled, tails, 0)
    rows, found = (
      zip(places.tolist(), tokens, mask, starts.tolist(), ends.tolist(), strict=True),
      [],
    )
    for (b, g), row, counts, start, end in rows:
      said = row[start:end].tolist()
      ended = bool(said) and said[-1] in words.end_ids
      new = Response(said, counts[start:end].tolist(), ended, words.decode)
      if self.seen.get((b, g)) != new:
        self.seen[b, g] = new
      found.append(self.seen[b, g])
    return found

  def verified(
    self, tokens: np.ndarray, mask: np.ndarray, places: np.ndarray
  ) -> Future[list[Verdict]]:
    """Verdicts on the rollouts at places [n, 2]."""
    responses = self._read(tokens, mask, places)
    pairs = zip(responses, places[:, 0].tolist(), strict=True)
    return self.player.verifier.submit([(said.text, self.prompts[b]) for said, b in pairs])

  def ended(self, tokens: Any, mask: Any, done: Any, known: Any) -> Piece:
    """Waits until the global arrays are there, then verifies what ended between two looks.

    Args:
      tokens: [B, G, T], as they stand at the second.
      mask: [B, G, T], likewise.
      done: [B, G] bool, what had ended by then.
      known: [B, G] bool, what had ended before; None: nothing.
    """
    new = to_local(done) if known is None else to_local(done) & ~to_local(known)
    arrived, places = time.perf_counter(), np.argwhere(new)
    if not len(places):
      return Piece(arrived, places, self.player.verifier.submit([]))
    return Piece(arrived, places, self.verified(to_local(tokens), to_local(mask), places))

  def put(self, r: Any, places: np.ndarray, verdicts: Sequence[Verdict]) -> dict[str, np.ndarray]:
    """The VERDICTS of `r`, [b, G] each, with those at places [n, 2] anew."""
    at = tuple(places.T)
    scores, outcome, correct = (np.array(r[name]) for name in VERDICTS)
    scores[at] = [verdict.score for verdict in verdicts]
    outcome[at] = [verdict.outcome for verdict in verdicts]
    correct[at] = [verdict.correct for verdict in verdicts]
    return dict(zip(VERDICTS, (scores, outcome, correct), strict=True))

  def judged(self, r: Share, changed: np.ndarray) -> Share:
    """`r` with new verdicts where `changed` [b, G]."""
    places = np.argwhere(changed)
    found = self.verified(r.tokens, r.mask, places).result()
    return dataclasses.replace(r, **self.put(vars(r), places, found))

  def signals(self, r: Share) -> dict[str, np.ndarray]:
    """What the task reads off the responses, [b, G] each."""
    source = self.player.task.signals
    if source is None:
      return {}
    read = [[source.read(response) for response in group] for group in self.responses(r)]
    kinds = {int: np.int32, bool: np.bool_, float: np.float32}
    return {
      name: np.array([[one[name] for one in group] for group in read], kinds[kind])
      for name, kind in source.dtypes.items()
    }

  def chosen(self, among: int) -> np.ndarray:
    """[b, G] int, below `among`: a number for each rollout, whichever process holds it."""
    index, group = jnp.asarray(self.rows.index), self.starts.shape[1]
    keys = row_keys(jax.random.fold_in(self.key, CHOSEN), index, group)
    return np.asarray(jax.vmap(jax.vmap(lambda k: jax.random.randint(k, (), 0, among)))(keys))

  def answered(
    self, r: Share, kept: np.ndarray, *, force: str, samples: int, cap: int
  ) -> np.ndarray:
    """[b, G] float32, the share of `samples` right answers when each response is broken off.

    The randomness is that of the round: two calls differ by what stands alone.

    Args:
      r: the rollouts.
      kept: [b, G] tokens of the response, forced ones included, that stand.
      force: text put behind them, such as the end of thinking.
      samples: continuations of each.
      cap: tokens of a continuation, at most.
    """
    player, shape = self.player, self.starts.shape
    ending = player.tokenizer.encode(force)
    limit = player.prompt_limit + player.engine.max_tokens + len(ending)
    starts, kept = self.starts.repeat(samples, -1), np.asarray(kept, np.int32).repeat(samples, -1)
    tokens = np.full((*starts.shape, limit), player.tokenizer.pad_id, np.int32)
    for place in np.ndindex(*starts.shape):
      until = starts[place] + kept[place]
      tokens[place][:until] = r.tokens[place[0], place[1] // samples, :until]
      tokens[place][until : until + len(ending)] = ending
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
    limits: Any = np.full(starts.shape, cap, np.int32)
    budget = Budget(limits, limits, limits * 0)
    key = jax.random.fold_in(self.key, ANSWERED)
    played, _ = player.play_rows(self.params, self.prompts, rows, budget, key)
    return to_local(played.correct).reshape(*shape, samples).mean(-1, dtype=np.float32)

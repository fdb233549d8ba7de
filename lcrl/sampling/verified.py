"""From prompts to verified rollouts: render, sample, read the text, verify. Training and evaluation
both go through here."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lcrl.data.rows import Rows, render_rows
from lcrl.mesh import local_rows, to_global, to_local
from lcrl.sampling.core import row_keys
from lcrl.tasks.task import Prompt, Response, Task
from lcrl.types import Budget, Rollouts

Share = Any  # Rollouts of this process only, numpy arrays
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
    """`play` begun: the devices have their work, and nothing has been waited for."""
    mine = local_rows(self.mesh, len(prompts))
    own = [prompts[i] for i in mine]
    budget = jax.tree.map(lambda x: np.asarray(x)[mine], budget)
    rows = render_rows(self.task, self.tokenizer, own, budget, index[mine], limit=self.prompt_limit)
    return self.launch_rows(params, own, rows, budget, key)

  def launch_rows(
    self, params: Any, prompts: Sequence[Prompt], rows: Rows, budget: Budget, key: jax.Array
  ) -> Playing:
    """`launch` of this process's own prompts, rows and budgets."""
    sampled = self.engine.generate(
      params, to_global(self.mesh, rows), to_global(self.mesh, budget), key
    )
    return Playing(Referee(self, params, prompts, rows, key), sampled)

  def play_rows(self, *args: Any) -> tuple[Rollouts, Referee]:
    """`play` of this process's own prompts, rows and budgets."""
    return self.launch_rows(*args).finish()


@dataclasses.dataclass(frozen=True, eq=False)
class Playing:
  """Rollouts that the devices sample while the host does something else."""

  referee: Referee
  sampled: Rollouts

  def finish(self) -> tuple[Rollouts, Referee]:
    """Waits for them and verifies them; what `Player.play` gives."""
    sampled = jax.block_until_ready(self.sampled)
    referee = dataclasses.replace(self.referee, arrived=time.perf_counter())
    verdicts = referee.verdicts(jax.tree.map(to_local, sampled))
    return dataclasses.replace(sampled, **to_global(referee.player.mesh, verdicts)), referee


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
  arrived: float = 0.0  # when all was sampled, by time.perf_counter

  @property
  def starts(self) -> np.ndarray:
    """[b, G] where responses begin in their rows, forced prefixes included."""
    rows = self.rows
    lengths = rows.lengths if rows.train_lengths is None else rows.train_lengths
    return np.asarray(lengths) - np.asarray(rows.forced)

  def responses(self, r: Share) -> list[list[Response]]:
    """[b][G]: everything after the prompt up to the last token that counts."""
    mask = r.mask
    ends = np.where(mask.any(-1), mask.shape[-1] - mask[..., ::-1].argmax(-1), self.starts)
    words, starts = self.player.tokenizer, self.starts

    def response(place) -> Response:
      span = slice(starts[place], ends[place])
      tokens, counts = r.tokens[place][span].tolist(), mask[place][span].tolist()
      ended = bool(tokens) and tokens[-1] in words.end_ids
      new = Response(tokens, counts, ended, words.decode)
      if self.seen.get(place) != new:
        self.seen[place] = new
      return self.seen[place]

    prompts, group = r.lengths.shape
    return [[response((b, g)) for g in range(group)] for b in range(prompts)]

  def verdicts(self, r: Share, changed: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The fields scores, correct and outcome, [b, G] each; anew where `changed`, or everywhere."""
    changed = np.ones(r.lengths.shape, bool) if changed is None else changed
    places = [tuple(place) for place in np.argwhere(changed)]
    responses = self.responses(r)
    found = self.player.verifier.verify(
      [(responses[b][g].text, self.prompts[b]) for b, g in places]
    )
    scores, outcome = np.array(r.scores), np.array(r.outcome)
    for place, verdict in zip(places, found, strict=True):
      scores[place], outcome[place] = verdict.score, verdict.outcome
    correct = np.where(changed, scores >= self.player.task.threshold, r.correct)
    return {"scores": scores, "correct": correct, "outcome": outcome}

  def judged(self, r: Share, changed: np.ndarray) -> Share:
    """`r` with new verdicts where `changed` [b, G]."""
    return dataclasses.replace(r, **self.verdicts(r, changed))

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

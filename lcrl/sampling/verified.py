"""From prompts to verified rollouts: render, sample, read the text, verify. Training and evaluation
both go through here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from lcrl.data.rows import Rows, render_rows
from lcrl.mesh import local_rows, to_global, to_local
from lcrl.tasks.task import Prompt, Task
from lcrl.types import Budget, Rollouts


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
  ) -> tuple[Rollouts, list[list[str]]]:
    """Verified rollouts of all `prompts` as global arrays, and this process's response texts.

    Args:
      params: of the policy, wherever they lie.
      prompts: all B of them, on every process.
      index: [B] positions in the data stream, which randomness folds in.
      budget: numpy, [B, G] each, on every process.
      key: of this step.
    """
    mine = local_rows(self.mesh, len(prompts))
    own = [prompts[i] for i in mine]
    budget = jax.tree.map(lambda x: np.asarray(x)[mine], budget)
    rows = render_rows(self.task, self.tokenizer, own, budget, index[mine], limit=self.prompt_limit)
    sampled = self.engine.generate(
      params, to_global(self.mesh, rows), to_global(self.mesh, budget), key
    )
    return self._verify(sampled, own, rows)

  def _verify(self, rollouts, prompts, rows: Rows) -> tuple[Rollouts, list[list[str]]]:
    texts = self._texts(rollouts, rows)
    requests = [(text, p) for row, p in zip(texts, prompts, strict=True) for text in row]
    verdicts = self.verifier.verify(requests)
    shape = len(texts), len(texts[0])
    scores = np.array([v.score for v in verdicts], np.float32).reshape(shape)
    outcome = np.array([v.outcome for v in verdicts], np.int8).reshape(shape)
    judged = {
      "scores": scores,
      "correct": scores >= self.task.threshold,
      "outcome": outcome,
    }
    return dataclasses.replace(rollouts, **to_global(self.mesh, judged)), texts

  def _texts(self, rollouts, rows: Rows) -> list[list[str]]:
    """What the verifier reads: everything after the prompt up to the last sampled token, forced
    tokens included, the end token not."""
    lengths = rows.lengths if rows.train_lengths is None else rows.train_lengths
    starts = np.asarray(lengths) - np.asarray(rows.forced)
    mask, tokens = to_local(rollouts.mask), to_local(rollouts.tokens)
    written = np.where(mask.any(-1), mask.shape[-1] - mask[..., ::-1].argmax(-1), starts)
    ends = written - ~to_local(rollouts.truncated)
    return [
      [self.tokenizer.decode(row[a:b].tolist()) for row, a, b in zip(*group, strict=True)]
      for group in zip(tokens, starts, ends, strict=True)
    ]

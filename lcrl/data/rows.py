"""Prompts and budgets as padded token rows, ready for the sampler."""

from __future__ import annotations

import dataclasses

import jax


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """What the sampler starts from: B prompts, G rollouts of each, P tokens, right-padded.

  `index` is the position in the data stream, the same in any layout over processes: randomness
  folds it in.
  """

  tokens: jax.Array  # [B, G, P] int32, prompt, then forced response prefix, then padding
  lengths: jax.Array  # [B, G] int32, prompt and forced prefix
  forced: jax.Array  # [B, G] int32, how many of the last of these are the forced prefix
  index: jax.Array  # [B] int32, global position in the data stream
  prompt_ids: jax.Array  # [B] int32, row of the data set
  difficulty: jax.Array  # [B] int32, as the task counts it
  train_tokens: jax.Array | None = None  # [B, G, P] int32, the row to train on; None: `tokens`
  train_lengths: jax.Array | None = None  # [B, G] int32, its prompt and forced prefix

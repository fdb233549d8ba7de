"""Prompts and budgets as padded token rows, ready for the sampler."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from lcrl.tasks.task import Messages, Prompt, Rendered, Task
from lcrl.types import Budget


class Tokenizer(Protocol):
  """What rows need of one."""

  pad_id: int

  @property
  def end_ids(self) -> Sequence[int]: ...
  def encode(self, text: str, /) -> list[int]: ...
  def render(self, messages: Messages, /) -> str: ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """What the sampler starts from: B prompts, G rollouts of each, P tokens, right-padded.

  `index` is the position in the data stream, the same in any layout over processes: randomness
  folds it in.
  """

  tokens: Any  # [B, G, P] int32, prompt, then forced response prefix, then padding
  lengths: Any  # [B, G] int32, prompt and forced prefix
  forced: Any  # [B, G] int32, how many of the last of these are the forced prefix
  index: Any  # [B] int32, global position in the data stream
  prompt_ids: Any  # [B] int32, row of the data set
  difficulty: Any  # [B] int32, as the task counts it
  train_tokens: Any = None  # [B, G, P] int32, the row to train on; None: `tokens`
  train_lengths: Any = None  # [B, G] int32, its prompt and forced prefix


def render_rows(
  task: Task,
  tokenizer: Tokenizer,
  prompts: Sequence[Prompt],
  budget: Budget,
  index: Sequence[int] | np.ndarray,
  *,
  limit: int,
) -> Rows:
  """Rows of B prompts as numpy arrays. P is always `limit`, so that nothing compiles twice.

  Args:
    task: says how a prompt looks at a budget.
    tokenizer: prompt and forced prefix are encoded apart, so that the border is a token border.
    prompts: B of them.
    budget: [B, G] each.
    index: [B] positions in the data stream.
    limit: most tokens of prompt and forced prefix; a longer row is a ValueError.
  """
  target, level = np.asarray(budget.target), np.asarray(budget.level)
  if target.shape != level.shape or not len(prompts) == len(index) == len(target):
    raise ValueError(
      f"{len(prompts)} prompts, {len(index)} indices and budgets of {target.shape} do not match."
    )
  shape = target.shape
  views = [
    [task.render(p, int(t), int(v)) for t, v in zip(*row, strict=True)]
    for p, *row in zip(prompts, target, level, strict=True)
  ]
  cache: dict[str, list[int]] = {}

  def encode(text: str) -> list[int]:
    if text not in cache:
      cache[text] = tokenizer.encode(text) if text else []
    return cache[text]

  def fill(messages) -> tuple[np.ndarray, np.ndarray]:
    rows = [
      (p.id, encode(tokenizer.render(messages(view))) + encode(view.prefix))
      for p, group in zip(prompts, views, strict=True)
      for view in group
    ]
    tokens, lengths = _pad(rows, tokenizer.pad_id, limit)
    return tokens.reshape(*shape, limit), lengths.reshape(shape)

  tokens, lengths = fill(lambda view: view.messages)
  differs = any(view.train_messages is not None for group in views for view in group)
  train = fill(_trained) if differs else (None, None)
  return Rows(
    tokens,
    lengths,
    np.array([[len(encode(v.prefix)) for v in group] for group in views], np.int32).reshape(shape),
    np.asarray(index, np.int32),
    np.array([p.id for p in prompts], np.int32),
    np.array([p.difficulty for p in prompts], np.int32),
    *train,
  )


def _trained(view: Rendered) -> Messages:
  return view.messages if view.train_messages is None else view.train_messages


def _pad(rows: Sequence[tuple[int, list[int]]], pad: int, limit: int):
  """Rows of (prompt id, tokens) -> [N, limit] int32, [N] int32."""
  tokens = np.full((len(rows), limit), pad, np.int32)
  for i, (prompt_id, row) in enumerate(rows):
    if len(row) > limit:
      raise ValueError(f"Prompt {prompt_id} has {len(row)} tokens; the limit is {limit}.")
    tokens[i, : len(row)] = row
  return tokens, np.array([len(row) for _, row in rows], np.int32)


def sft_rows(
  tokenizer: Tokenizer, pairs: Sequence[tuple[Prompt, str]], *, limit: int
) -> tuple[np.ndarray, np.ndarray]:
  """Prompts with their responses: tokens [N, limit] int32, and mask [N, limit] bool, True on the
  response and its end token."""
  asked = [tokenizer.encode(tokenizer.render(prompt.messages)) for prompt, _ in pairs]
  said = [[*tokenizer.encode(text), tokenizer.end_ids[0]] for _, text in pairs]
  rows = [(p.id, a + s) for (p, _), a, s in zip(pairs, asked, said, strict=True)]
  tokens, lengths = _pad(rows, tokenizer.pad_id, limit)
  starts = np.array([len(a) for a in asked], np.int32)
  position = np.arange(limit)[None]
  return tokens, (position >= starts[:, None]) & (position < lengths[:, None])

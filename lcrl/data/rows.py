"""Prompts and budgets as padded token rows, ready for the sampler."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from lcrl.protocols import Tokenizer
from lcrl.tasks.task import Messages, Prompt, Task, plain
from lcrl.types import Budget


def answer_ids(tokenizer: Tokenizer, text: str) -> list[int]:
  """Tokens of an answer and its end token. A tokenizer whose control tokens a text may spell out
  has a method of its own (`lcrl.policies.Tokenizer.answer`)."""
  encode_answer = getattr(tokenizer, "answer", None)
  return encode_answer(text) if encode_answer else [*tokenizer.encode(text), tokenizer.end_ids[0]]


def without_open_tag(text: str, prompt: str) -> str:
  r"""An answer without the tag that its prompt ends with, as templates of R1 end with <think>.

  >>> without_open_tag("<think>\n1 + 2</think>3", "...<think>\n")
  '1 + 2</think>3'
  """
  opened = re.search(r"(<\w+>|\[THINK\])(\s*)$", prompt)
  if opened is None or not text.lstrip().startswith(opened[1]):
    return text
  return text.lstrip().removeprefix(opened[1]).removeprefix(opened[2])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows:
  """The sampler's input: B prompts, G rollouts of each, P tokens, right-padded.

  `index` is the position in the data stream, the same in any layout over processes: random
  keys fold it in.
  """

  tokens: Any  # [B, G, P] int32, prompt, then forced response prefix, then padding
  lengths: Any  # [B, G] int32, prompt and forced prefix
  forced: Any  # [B, G] int32, of the forced prefix alone
  index: Any  # [B] int32, global position in the data stream
  prompt_ids: Any  # [B] int32, row of the data set
  difficulty: Any  # [B] int32, as the task counts it
  train_tokens: Any = None  # [B, G, P] int32, the row to train on; None: `tokens`
  train_lengths: Any = None  # [B, G] int32, its prompt and forced prefix
  counts: Any = None  # [B, G] int32, forced tokens that count as sampled; None: none do
  expected: Any = None  # [B] float32, tokens that answers will have, as far as known; None: unknown


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
    task: renders a prompt for its budget.
    tokenizer: encodes prompt and forced prefix separately, so that no token spans both.
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
  views = [
    task.render(prompt, int(t), int(v))
    for prompt, *row in zip(prompts, target, level, strict=True)
    for t, v in zip(*row, strict=True)
  ]
  ids = np.array([prompt.id for prompt in prompts], np.int32)
  encode = functools.cache(lambda text: np.array(tokenizer.encode(text) if text else [], np.int32))

  encoded: dict[int, np.ndarray] = {}  # by id of the messages: a group mostly shares one object

  def encode_prompt(messages: Messages) -> np.ndarray:
    if id(messages) not in encoded:
      text = tokenizer.render(messages, **task.variables)
      encoded[id(messages)] = np.array(tokenizer.encode(text), np.int32)
    return encoded[id(messages)]

  def fill(messages: Sequence[Messages]) -> tuple[np.ndarray, np.ndarray]:
    pairs = zip(map(encode_prompt, messages), views, strict=True)
    both = ((prompt, encode(view.prefix)) for prompt, view in pairs)
    rows = [np.concatenate(parts) if parts[1].size else parts[0] for parts in both]
    tokens, lengths = _pad(rows, np.repeat(ids, target.shape[1]), tokenizer.pad_id, limit)
    return tokens.reshape(*target.shape, limit), lengths.reshape(target.shape)

  tokens, lengths = fill([view.messages for view in views])
  forced = np.array([len(encode(v.prefix)) for v in views], np.int32)
  train: tuple = (None, None, None)
  if task.render is not plain:  # the same for the whole run, so that processes agree
    counts = np.where([view.prefix_counts for view in views], forced, 0).astype(np.int32)
    messages = [view.train_messages or view.messages for view in views]
    train = (*fill(messages), counts.reshape(target.shape))
  return Rows(
    tokens,
    lengths,
    forced.reshape(target.shape),
    np.asarray(index, np.int32),
    ids,
    np.array([prompt.difficulty for prompt in prompts], np.int32),
    *train,
  )


def token_rows(
  prompts: Sequence[Sequence[int] | np.ndarray],
  index: np.ndarray,
  *,
  samples: int,
  limit: int,
  pad: int,
) -> Rows:
  """Rows of prompts that are tokens already, without a forced prefix: B of them, `samples` each."""
  tokens, lengths = _pad(prompts, index, pad, limit)
  shape, zeros = (len(prompts), samples), np.zeros(len(prompts), np.int32)
  spread = lambda x: np.broadcast_to(x[:, None], (*shape, *x.shape[1:])).copy()
  return Rows(spread(tokens), spread(lengths), np.zeros(shape, np.int32), index, zeros, zeros)


def _pad(
  rows: Sequence[Sequence[int] | np.ndarray], ids: Sequence[int] | np.ndarray, pad: int, limit: int
):
  """Rows of prompts `ids` -> tokens [N, limit] int32, lengths [N] int32."""
  tokens = np.full((len(rows), limit), pad, np.int32)
  for out, row, prompt_id in zip(tokens, rows, ids, strict=True):
    if len(row) > limit:
      raise ValueError(f"Prompt {prompt_id} has {len(row)} tokens; the limit is {limit}.")
    out[: len(row)] = row
  return tokens, np.array([len(row) for row in rows], np.int32)


def sft_rows(
  tokenizer: Tokenizer, pairs: Sequence[tuple[Prompt, str]], *, limit: int
) -> tuple[np.ndarray, np.ndarray]:
  """Prompts with their responses: tokens [N, limit] int32, and mask [N, limit] bool, True on the
  response and its end token.

  >>> from lcrl.data.tokenizers import utf8
  >>> prompt = Prompt(0, [{"role": "user", "content": "hi"}], None)
  >>> tokens, mask = sft_rows(utf8(), [(prompt, "yo")], limit=8)
  >>> print(tokens, mask.sum())
  [[104 105  10 121 111 256 257 257]] 3
  """
  rendered = [tokenizer.render(prompt.messages) for prompt, _ in pairs]
  prompts = [tokenizer.encode(text) for text in rendered]
  texts = (without_open_tag(text, r) for (_, text), r in zip(pairs, rendered, strict=True))
  answers = [answer_ids(tokenizer, text) for text in texts]
  rows = [p + a for p, a in zip(prompts, answers, strict=True)]
  tokens, lengths = _pad(rows, [prompt.id for prompt, _ in pairs], tokenizer.pad_id, limit)
  starts = np.array([len(p) for p in prompts], np.int32)
  position = np.arange(limit)[None]
  return tokens, (position >= starts[:, None]) & (position < lengths[:, None])

"""The policy refines its own answers in a second turn of the round: EVOLVE, arXiv:2502.05605.

Both turns make pairs: a refined answer against the first one, as answers to the prompt and as
answers to the prompt with the first answer and the request to refine it (from memory; the paper's
text could not be read). So a group of G answers becomes four columns of G rows: the first answers,
the refined ones as answers to the prompt, and both as answers to the second turn.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lcrl.data.pair_builders import refinement_prompt
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Prompt, plain
from lcrl.training.iterative.settings import COLUMNS

Sample = Callable[[list[Prompt], int], Any]  # prompts, rollout -> one answer each, numpy [N, 1]


class Turns(NamedTuple):
  """The rows of the second turn, numpy."""

  refined: Any  # Rollouts [N, G], the refined answers
  starts: np.ndarray  # [N, G] where they start
  fits: np.ndarray  # [N, G] bool, False where prompt, answer and request are too long


class Refinement:
  """Asks for a refined answer to each first one."""

  def __init__(self, instruction: str, worker: RolloutWorker):
    if worker.task.render is not plain:
      raise ValueError("refine shows no budget in its second turn: leave out task.render.")
    control = getattr(worker.engine, "control", None)  # a sampler of one's own may have none
    if control is not None and control.cut is not None:
      raise ValueError(
        "refine moves the tokens that were drawn: leave out a sampling.control that forces others, "
        "such as thinking_budget."
      )
    self._instruction, self._worker = instruction, worker

  def sampled(self, first: Any, prompts: Sequence[Prompt], sample: Sample) -> Turns:
    """The refined answers to `first`, rollouts as numpy [N, G]."""
    parts, fits = [], []
    for g in range(first.lengths.shape[1]):
      asked = [self._asked(prompt, first, b, g) for b, prompt in enumerate(prompts)]
      fits.append([one is not None for one in asked])
      # A row that does not fit is sampled from the prompt alone, and left out.
      found = [one or prompt for one, prompt in zip(asked, prompts, strict=True)]
      parts.append(sample(found, g))
    refined = side_by_side(*parts)
    return Turns(refined, refined.mask.argmax(-1), np.array(fits, bool).T)

  def _asked(self, prompt: Prompt, first: Any, b: int, g: int) -> Prompt | None:
    """The prompt of the second turn; None if it exceeds the limit of prompts."""
    tokenizer, task = self._worker.tokenizer, self._worker.task
    ids = first.tokens[b, g][first.mask[b, g]].tolist()
    text = tokenizer.decode(ids[:-1] if ids and ids[-1] in self._worker.end_ids else ids)
    messages = refinement_prompt(prompt.messages, text, self._instruction)
    size = len(tokenizer.encode(tokenizer.render(messages, **task.variables)))
    return (
      dataclasses.replace(prompt, messages=messages) if size <= self._worker.prompt_limit else None
    )

  def direct(self, first: Any, turns: Turns) -> Any:
    """The refined answers as answers to the prompts: rollouts with the task's signals alone."""
    r, source = turns.refined, self._worker.task.signals
    tokens, mask, log_probs = (np.zeros_like(x) for x in (r.tokens, r.mask, r.sampler_log_probs))
    tokens[...] = self._worker.tokenizer.pad_id
    for b, g in np.ndindex(turns.fits.shape):
      start, size = int(first.mask[b, g].argmax()), int(r.lengths[b, g])
      own = slice(int(turns.starts[b, g]), int(turns.starts[b, g]) + size)
      tokens[b, g, :start] = first.tokens[b, g, :start]
      for out, x in ((tokens, r.tokens), (mask, r.mask), (log_probs, r.sampler_log_probs)):
        out[b, g, start : start + size] = x[b, g, own]
    names = () if source is None else source.dtypes
    return dataclasses.replace(
      r,
      tokens=tokens,
      mask=mask,
      sampler_log_probs=log_probs,
      valid=r.valid & turns.fits,
      signals={name: r.signals[name] for name in names},
    )


def columns(first: Any, direct: Any, turns: Turns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Tokens and mask [N, 4 G, T], and which column each refines [N, 4 G], -1 for none."""
  count, group, _ = first.tokens.shape
  tokens, mask = turns.refined.tokens.copy(), np.zeros_like(turns.refined.mask)
  for b, g in np.ndindex(count, group):
    start, size = int(turns.starts[b, g]), int(first.lengths[b, g])
    begin = int(first.mask[b, g].argmax())
    tokens[b, g, start:] = 0
    tokens[b, g, start : start + size] = first.tokens[b, g, begin : begin + size]
    mask[b, g, start : start + size] = True
  there = turns.fits[..., None]
  masks = [first.mask, direct.mask & there, turns.refined.mask & there, mask & there]
  rows = [first.tokens, direct.tokens, turns.refined.tokens, tokens]
  none, own = np.full(group, -1), np.arange(group)
  refines = np.concatenate([none, own, 3 * group + own, none]).astype(np.int32)
  spread = np.broadcast_to(refines, (count, COLUMNS * group)).copy()
  return np.concatenate(rows, 1), np.concatenate(masks, 1), spread


def in_columns(x: np.ndarray) -> np.ndarray:
  """Values of first and refined answers [N, 2 G], for the four columns [N, 4 G]."""
  first, refined = np.split(np.asarray(x), 2, 1)
  return np.concatenate([first, refined, refined, first], 1)


def side_by_side(*parts: Any) -> Any:
  """Rollouts of the same prompts as one group, numpy."""
  return jax.tree.map(lambda *x: x[0] if x[0].ndim == 1 else np.concatenate(x, 1), *parts)

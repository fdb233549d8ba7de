"""Answers of another model, added to those of the policy: the chosen side of semi-on-policy pairs.

Source: Light-R1, arXiv:2503.10460, where a stronger model's right answers are chosen over the
policy's own wrong ones.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lcrl.data import readers
from lcrl.data.layouts import read_answer
from lcrl.data.rows import answer_ids
from lcrl.registry import build
from lcrl.rollouts.worker import RolloutWorker
from lcrl.tasks.task import Messages, Prompt


class Teacher:
  """One answer to a prompt, from a file of prompts and answers (`lcrl.data.layouts`)."""

  def __init__(self, spec: Mapping[str, Any], worker: RolloutWorker):
    """Raises ValueError if the file answers none of the task's first prompts."""
    self._worker, self._texts = worker, dict[str, str]()
    for where, row in build(readers, spec, field="teacher"):
      try:
        pair = read_answer(row)
      except ValueError as why:
        raise ValueError(f"{where}: {why}") from why
      self._texts.setdefault(_key(pair.messages), pair.sides[0])
    prompts = worker.task.prompts
    first = [prompts[i].messages for i in range(min(1024, len(prompts)))]
    if not any(_key(messages) in self._texts for messages in first):
      raise ValueError(f"teacher.path={spec.get('path')!r} answers none of the task's prompts.")

  def joined(self, pool: Any, prompts: Sequence[Prompt]) -> Any:
    """The pool, in numpy, with a column of this teacher's answers, which it verifies. An answer is
    empty if the teacher has none, or none that fits the window."""
    count, _, window = pool.tokens.shape
    tokens = np.full((count, 1, window), self._worker.tokenizer.pad_id, np.int32)
    mask, scores = np.zeros((count, 1, window), bool), np.zeros((count, 1), np.float32)
    correct = np.zeros((count, 1), bool)
    texts: dict[int, str] = {}
    for b, prompt in enumerate(prompts):
      text = self._texts.get(_key(prompt.messages))
      start = int(pool.mask[b, 0].argmax())
      answer = [] if text is None else answer_ids(self._worker.tokenizer, text)
      if text is not None and start + len(answer) <= window:
        texts[b] = text
        tokens[b, 0, :start] = pool.tokens[b, 0, :start]
        tokens[b, 0, start : start + len(answer)] = answer
        mask[b, 0, start : start + len(answer)] = True
    verdicts = self._worker.verifier.verify([(text, prompts[b]) for b, text in texts.items()])
    scores[list(texts), 0] = [verdict.score for verdict in verdicts]
    correct[list(texts), 0] = [verdict.correct for verdict in verdicts]
    column = {
      "tokens": tokens,
      "mask": mask,
      "rewards": scores,
      "correct": correct,
      "teacher": mask.any(-1),
    }
    both = {name: np.concatenate([getattr(pool, name), x], 1) for name, x in column.items()}
    return dataclasses.replace(pool, **both)


def _key(messages: Messages) -> str:
  return json.dumps(messages, sort_keys=True)

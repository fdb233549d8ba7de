"""EVOLVE: a second turn in which a model refines its answers, and the pairs of both turns.

Source: EVOLVE, arXiv:2502.05605, whose text could not be read: each iteration prefers a refined
answer to the first one, both as an answer to the prompt and as one to the request to refine it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lcrl.data.pair_builders import refinement_prompt
from lcrl.tasks.task import Messages

__all__ = ["INSTRUCTION", "preferences", "refine"]

Row = Mapping[str, Any]  # of answers.jsonl: prompt, text, reference
Write = Callable[[Sequence[Messages]], list[str]]
INSTRUCTION = (
  "Check your answer, correct what is wrong, and leave out what is not needed. Reply with \
the improved answer alone."
)


def refine(answers: Sequence[Row], write: Write, *, instruction: str = INSTRUCTION) -> list[str]:
  """The second answer of a model to each prompt, after its first answer and the instruction.

  >>> answers = [{"prompt": [{"role": "user", "content": "1 + 1?"}], "text": "It is 3."}]
  >>> refine(answers, lambda conversations: [f"{len(turns)} turns" for turns in conversations])
  ['3 turns']
  """
  return write([_second_turn(row, instruction) for row in answers])


def preferences(
  answers: Sequence[Row],
  refined: Sequence[str],
  score: Callable[[str, Any], float],
  *,
  instruction: str = INSTRUCTION,
  min_gap: float = 0.0,
) -> list[dict[str, Any]]:
  """Two pairs for each refined answer that scores above its first one by more than `min_gap`: to
  the prompt, and to the prompt with the first answer and the instruction.

  Args:
    answers: the first answers.
    refined: the second answer to each.
    score: text, reference -> its worth.
  """
  pairs = []
  for row, better in zip(answers, refined, strict=True):
    reference = row.get("reference")
    if score(better, reference) - score(row["text"], reference) > min_gap:
      sides = {"chosen": better, "rejected": row["text"]}
      pairs += [
        {"prompt": list(messages), **sides}
        for messages in (row["prompt"], _second_turn(row, instruction))
      ]
  return pairs


def _second_turn(row: Row, instruction: str) -> Messages:
  return refinement_prompt(tuple(row["prompt"]), row["text"], instruction)

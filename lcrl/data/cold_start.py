"""Data for stages before RL, built from the answers of an evaluation (its answers.jsonl).

A row is an answer: prompt (messages), text, correct, tokens, reference. Rows of one prompt are its
samples; several files join by their prompts. The results are rows of `lcrl.data.layouts` for
run="sft" (prompt, response), or problems with answers for `task.fn="jsonl"`. Host side.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lcrl.tasks import render
from lcrl.tasks.task import Prompt

__all__ = [
  "adactrl",
  "budget_modes",
  "cot_valve",
  "light_r1_first",
  "light_r1_second",
  "mixchain",
  "problems",
  "two_modes",
]

CLOSE = "</think>"
# Of high, medium and low effort: the system prompt, the share of the thinking, and how it ends.
BUDGET_MODES = (
  (
    "Take all the time you need. Explore, try other approaches and verify before you answer.",
    1.0,
    "",
  ),
  (
    "Think long enough to be sure of the answer, but no longer: time has its price.",
    0.5,
    "That is thorough enough; now I can answer.\n",
  ),
  (
    "There is hardly any time. Think only as far as you must, and answer at once.",
    0.25,
    "Time is short, so I answer now.\n",
  ),
)
Row = Mapping[str, Any]
Prompts = dict[str, list[Row]]  # a key of the prompt -> its samples


def by_prompt(rows: Iterable[Row]) -> Prompts:
  """The samples of each prompt, in the order in which prompts appear.

  Raises:
    ValueError: a row lacks a field that the builders read.
  """
  found: Prompts = {}
  for number, row in enumerate(rows, 1):
    if missing := {"prompt", "text", "correct", "tokens", "reference"} - row.keys():
      raise ValueError(f"answer {number} has no {sorted(missing)[0]!r}.")
    found.setdefault(json.dumps(row["prompt"], sort_keys=True), []).append(row)
  if not found:
    raise ValueError("there are no answers.")
  return found


def pass_rate(samples: Sequence[Row]) -> float:
  """The share of right samples."""
  return sum(bool(row["correct"]) for row in samples) / len(samples)


def problems(weak: Prompts, *, low: float = 0.25, high: float = 0.625) -> list[dict[str, Any]]:
  """The problems whose pass rate lies between `low` and `high`, both included: prompts of an RL
  stage that are neither solved nor hopeless.

  Source: Light-R1, arXiv:2503.10460 (0.25 to 0.625 of a 7B model).

  >>> row = dict(prompt=[{"role": "user", "content": "1 + 1?"}], text="2", tokens=3, reference="2")
  >>> problems({"a": [row | dict(correct=True), row | dict(correct=False)]})
  [{'problem': '1 + 1?', 'answer': '2', 'pass_rate': 0.5}]
  """
  if not 0 <= low <= high <= 1:
    raise ValueError(f"0 <= low <= high <= 1 must hold, got {low} and {high}.")
  chosen = [s for s in weak.values() if low <= pass_rate(s) <= high]
  return [
    {
      "problem": samples[0]["prompt"][-1]["content"],
      "answer": samples[0]["reference"],
      "pass_rate": pass_rate(samples),
    }
    for samples in chosen
  ]


def light_r1_first(
  weak: Prompts, teacher: Prompts, *, below: float = 0.5, seed: int = 0
) -> list[dict[str, Any]]:
  """First stage of curriculum SFT: one right answer of the teacher, drawn by the seed, to each
  prompt that a small model passes less often than `below`.

  Source: Light-R1, arXiv:2503.10460 (a 1.5B model's pass rate; its threshold is not published).

  >>> row = dict(prompt="1 + 1?", text="It is 2.", tokens=3, reference="2")
  >>> answer = lambda right: row | dict(correct=right)
  >>> light_r1_first({"a": [answer(False)]}, {"a": [answer(True)]})
  [{'prompt': '1 + 1?', 'response': 'It is 2.'}]
  """
  hard = [key for key, samples in weak.items() if pass_rate(samples) < below]
  return _imitated(teacher, hard, _drawn(seed))


def light_r1_second(teacher: Prompts, *, seed: int = 0) -> list[dict[str, Any]]:
  """Second stage: one right answer to each prompt of which the teacher itself is neither always
  right nor always wrong. Source: Light-R1, arXiv:2503.10460.

  >>> row = dict(prompt="1 + 1?", text="It is 2.", tokens=3, reference="2")
  >>> answer = lambda right: row | dict(correct=right)
  >>> light_r1_second({"a": [answer(True), answer(False)]})
  [{'prompt': '1 + 1?', 'response': 'It is 2.'}]
  """
  hardest = [key for key, samples in teacher.items() if 0 < pass_rate(samples) < 1]
  return _imitated(teacher, hardest, _drawn(seed))


def adactrl(
  short: Prompts,
  long: Prompts,
  *,
  threshold: float = 0.625,
  tags: tuple[str, str] = ("[Easy]", "[Hard]"),
  seed: int = 0,
) -> list[dict[str, Any]]:
  """Answers that open with a tag: the shortest right one of `short` to a prompt that it passes more
  often than `threshold`, and a right one of `long`, drawn by the seed, to all others.

  Source: AdaCtrl, arXiv:2505.18822 (short answers to easy problems, long reasoning on hard ones);
  difficulty by pass rate, with the threshold of its reward, is ours.

  >>> row = dict(prompt="1 + 1?", correct=True, reference="2")
  >>> answer = lambda text: row | dict(text=text, tokens=len(text))
  >>> adactrl({"a": [answer("2")]}, {"a": [answer("It is 2.")]})
  [{'prompt': '1 + 1?', 'response': '[Easy]2'}]
  """
  easy = {key for key, samples in short.items() if pass_rate(samples) > threshold}
  brief = _imitated(short, [key for key in short if key in easy], _shortest, opening=tags[0])
  hard = [key for key in short if key not in easy]
  return brief + _imitated(long, hard, _drawn(seed), opening=tags[1])


def two_modes(
  short: Prompts, long: Prompts, *, openings: tuple[str, str] = ("", ""), seed: int = 0
) -> list[dict[str, Any]]:
  """A short and a long right answer to each prompt that has both, after the opening of their mode.

  Both modes come equally often, so that none is preferred before RL. Source: Adaptive Deep
  Reasoning, arXiv:2505.20101 (abstract); balance and openings are ours.

  >>> row = dict(prompt="1 + 1?", correct=True, reference="2")
  >>> answer = lambda text: row | dict(text=text, tokens=len(text))
  >>> [row["response"] for row in two_modes({"a": [answer("2")]}, {"a": [answer("It is 2.")]})]
  ['2', 'It is 2.']
  """
  solved = lambda prompts, key: any(row["correct"] for row in prompts.get(key, ()))
  both = [key for key in short if solved(short, key) and solved(long, key)]
  brief = _imitated(short, both, _shortest, opening=openings[0])
  return brief + _imitated(long, both, _drawn(seed), opening=openings[1])


def budget_modes(answers: Prompts, *, seed: int = 0) -> list[dict[str, Any]]:
  """A right answer to each prompt, drawn by the seed, at three levels of effort: its thinking
  whole, cut to a half, and to a quarter, each with the system prompt of its level (`BUDGET_MODES`).

  Thinking is cut by characters, at the end of a line. Source: Budget-Mode SFT of ThinkDial,
  arXiv:2508.18773. It has the answer written anew behind cut thinking and keeps what is right;
  here the answer stays.

  >>> prompt, text = [{"role": "user", "content": "1 + 1?"}], "I add.\\nI add again.\\n</think>2"
  >>> row = dict(prompt=prompt, text=text, correct=True, tokens=9, reference="2")
  >>> [len(made["response"]) for made in budget_modes({"a": [row]})]
  [29, 59, 41]
  """
  found: list[dict[str, Any]] = []
  draw = _drawn(seed)
  for samples in answers.values():
    right = [row for row in samples if row["correct"] and CLOSE in row["text"]]
    if not right:
      continue
    row = draw(right)
    thinking, _, answer = row["text"].partition(CLOSE)
    for system, share, ending in BUDGET_MODES:
      asked = render.system(system)(Prompt(0, tuple(row["prompt"]), None), 0, 0).messages
      text = _lines(thinking, share) + ending + CLOSE + answer
      found.append({"prompt": [*asked], "response": text})
  return found


def _lines(text: str, share: float) -> str:
  """The whole lines within the first `share` of the text."""
  return text if share == 1 else text[: text.rfind("\n", 0, int(share * len(text))) + 1]


def mixchain(*levels: Prompts) -> list[dict[str, Any]]:
  """Right answers of falling length to one prompt, from the longest level on, with the level as
  score; only of prompts that every level answers rightly and more briefly than the one before.

  Answers of a level are those of one model, or of one strength along an adapter
  (`lcrl-evaluate --along --strengths`). `batches.fn="progressive"` trains on the levels in
  their order. Source: MixChain of CoT-Valve, arXiv:2502.09601; the shortest right answer of each
  level is ours.

  >>> row = dict(prompt="1 + 1?", correct=True, reference="2")
  >>> answer = lambda text: row | dict(text=text, tokens=len(text))
  >>> [row["response"] for row in mixchain({"a": [answer("It is 2.")]}, {"a": [answer("2")]})]
  ['It is 2.', '2']
  """
  return [
    _chain_row(row, level)
    for chain in _chains("mixchain", levels)
    for level, row in enumerate(chain)
  ]


def cot_valve(*levels: Prompts) -> list[dict[str, Any]]:
  """The chains of `mixchain`, with the strength at which adapters act on them as score.

    1 - (tokens - shortest) / (longest - shortest)

  among the chains of one prompt: 0 for the longest, 1 for the shortest. A run with
  `train.strengths` reads it. Source: CoT-Valve, arXiv:2502.09601, from secondary notes.

  >>> row = dict(prompt="1 + 1?", correct=True, reference="2")
  >>> answer = lambda text: row | dict(text=text, tokens=len(text))
  >>> [row["score"] for row in cot_valve({"a": [answer("It is 2.")]}, {"a": [answer("2")]})]
  [0.0, 1.0]
  """
  found = []
  for chain in _chains("cot_valve", levels):
    longest, shortest = chain[0]["tokens"], chain[-1]["tokens"]
    share = lambda row, low=shortest, high=longest: 1 - (row["tokens"] - low) / (high - low)
    found += [_chain_row(row, share(row)) for row in chain]
  return found


def _chains(kind: str, levels: Sequence[Prompts]) -> Iterator[list[Row]]:
  """The shortest right answer of each level to a prompt, where every level has one and it falls."""
  if len(levels) < 2:
    raise ValueError(f"{kind} needs the answers of two levels or more, got {len(levels)}.")
  for key in levels[0]:
    right = [[row for row in level.get(key, ()) if row["correct"]] for level in levels]
    if not all(right):
      continue
    chain = [_shortest(rows) for rows in right]
    if all(a["tokens"] > b["tokens"] for a, b in itertools.pairwise(chain)):
      yield chain


def _chain_row(row: Row, score: float) -> dict[str, Any]:
  return {"prompt": row["prompt"], "response": row["text"], "score": score}


def _imitated(
  answers: Prompts, keys: Sequence[str], choose: Callable[[list[Row]], Row], opening: str = ""
) -> list[dict[str, Any]]:
  """A chosen right answer to each of the prompts that has one."""
  right = {key: [row for row in answers.get(key, ()) if row["correct"]] for key in keys}
  chosen = [choose(rows) for rows in right.values() if rows]
  return [{"prompt": row["prompt"], "response": opening + row["text"]} for row in chosen]


def _shortest(rows: list[Row]) -> Row:
  return min(rows, key=lambda row: row["tokens"])


def _drawn(seed: int) -> Callable[[list[Row]], Row]:
  random = np.random.default_rng(seed)
  return lambda rows: rows[int(random.integers(len(rows)))]

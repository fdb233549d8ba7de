"""What the start's own answers to training problems give to learn from.

pairs     the shortest right answer over the longest right one
shortest  the shortest right answer
told      right answers, each asked for in the least of `BUDGETS` that holds it; one a problem and
          budget
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.studies.qwen_math.methods import BUDGETS, METHODS
from lcrl.data.pair_builders import Samples, shortest_vs_longest

PROBLEMS, SAMPLES = 3500, 8  # about as many tokens as a run of RL samples

Answer = Mapping[str, Any]  # prompt, text, tokens, correct, truncated


def lessons(answers: list[Answer]) -> Iterator[tuple[str, dict[str, str]]]:
  """The answers to one problem -> names of files, and rows for them."""
  prompt = answers[0]["prompt"][-1]["content"]
  right = [a["correct"] and not a["truncated"] for a in answers]
  lengths = [a["tokens"] for a in answers]
  samples = Samples(lengths=lengths, correct=right, scores=[float(x) for x in right])
  for short, long in shortest_vs_longest(samples):
    sides = dict(chosen=answers[short]["text"], rejected=answers[long]["text"])
    yield "pairs", dict(prompt=prompt, **sides)
  ordered = sorted((a for a, good in zip(answers, right, strict=True) if good), key=_tokens)
  if ordered:
    yield "shortest", dict(prompt=prompt, response=ordered[0]["text"])
  told = {min(b for b in BUDGETS if b >= _tokens(a)): a["text"] for a in ordered}
  for budget, text in told.items():
    ask = METHODS["told"].ask.format(target=budget)
    yield "told", dict(prompt=prompt + ask, response=text)


def _tokens(answer: Answer) -> int:
  return answer["tokens"]


def write(folder: Path, answers: Iterable[Answer]) -> dict[str, int]:
  """Files `pairs`, `shortest` and `told` of a folder; how many rows each has, and the tokens that
  were sampled for them."""
  by_problem: dict[Any, list[Answer]] = {}
  for answer in answers:
    by_problem.setdefault(answer["prompt_id"], []).append(answer)
  rows: dict[str, list[dict[str, str]]] = {"pairs": [], "shortest": [], "told": []}
  for group in by_problem.values():
    for name, row in lessons(group):
      rows[name].append(row)
  facts = {name: len(found) for name, found in rows.items()}
  facts["sampled_tokens"] = sum(_tokens(a) for group in by_problem.values() for a in group)
  folder.mkdir(parents=True)
  for name, found in rows.items():
    text = "".join(json.dumps(row) + "\n" for row in found)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
  (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
  return facts

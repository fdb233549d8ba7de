"""What an evaluation was made on: data, model, temperature, and whether training saw the prompts.

A setup is a plain mapping, which summary.json and evaluation.json hold under "evaluation":

  data, model          the config's section of the task, and the policy's path or section
  prompts, samples     how many, and answers to each
  max_tokens           of an answer
  asked                budgets that the prompts ask for, in words, if they do
  temperature          of sampling; 0: the most likely token
  training_prompts     how many of the prompts stand in the training data, too; None: not compared
  compared_with        prompts of the training data that were looked at, "of" so many
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lcrl.data.choosing import SCANNED
from lcrl.evaluation.progress import to_stderr
from lcrl.protocols import Tokenizer
from lcrl.tasks.task import Prompt, Task, prompt_key

__all__ = [
  "Training",
  "Unread",
  "compared",
  "described",
  "listed",
  "model_of",
  "of_task",
  "of_tokens",
  "tell",
  "warning",
]


def compared(
  evaluated: Sequence[Hashable], trained: Iterable[Hashable], *, of: int
) -> dict[str, int]:
  """How many of `evaluated` are among the `of` prompts of the training data, of which `trained` may
  be the first ones only. Looks at these in their order until all are found.

  >>> compared(["a", "b"], ["c", "b"], of=2)
  {'training_prompts': 1, 'compared_with': 2, 'of': 2}
  """
  missing, looked = set(evaluated), 0
  for prompt in trained:
    missing.discard(prompt)
    looked += 1
    if not missing:
      break
  found = sum(prompt not in missing for prompt in evaluated)
  return {"training_prompts": found, "compared_with": looked, "of": of}


class Training(NamedTuple):
  """The prompts that a policy learns from."""

  size: int
  keys: Callable[[], Iterable[Hashable]]  # one for each prompt
  key: Callable[[Prompt], Hashable]  # of a prompt of an evaluation, to find among them

  def overlap(self, prompts: Sequence[Prompt]) -> dict[str, int]:
    """`compared` of the prompts of an evaluation."""
    return compared([self.key(prompt) for prompt in prompts], self.keys(), of=self.size)


class Unread(NamedTuple):
  """Training data that cannot be read."""

  def overlap(self, prompts: Sequence[Prompt]) -> dict[str, None]:
    del prompts
    return {"training_prompts": None}


def of_task(task: Task) -> Training:
  """All prompts of a task; the first ones if it makes them on demand.

  >>> from types import SimpleNamespace
  >>> of_task(SimpleNamespace(prompts=["a", "b"])).size
  2
  """
  prompts, size = task.prompts, len(task.prompts)
  looked = size if isinstance(prompts, list | tuple) else min(size, SCANNED)
  return Training(size, lambda: (prompt_key(prompts[i]) for i in range(looked)), prompt_key)


def of_tokens(prompts: Sequence[np.ndarray], tokenizer: Tokenizer) -> Training:
  """Prompts of a data set of answers, as tokens [P] each.

  >>> from lcrl.data.tokenizers import utf8
  >>> of_tokens([np.array([104, 105])], utf8()).size
  1
  """
  key = lambda prompt: tuple(tokenizer.encode(tokenizer.render(prompt.messages)))
  return Training(len(prompts), lambda: (tuple(p.tolist()) for p in prompts), key)


def model_of(policy: Mapping[str, Any]) -> str:
  """What to call the policy of a config's section.

  >>> model_of(dict(fn="pretrained", path="models/r1"))
  'models/r1'
  """
  return str(policy["path"]) if "path" in policy else listed(policy)


def described(setup: Mapping[str, Any]) -> str:
  """A setup as a sentence; what it does not say is not known.

  >>> described(dict(data=dict(fn="jsonl", path="data/math.jsonl"), prompts=128, samples=1))
  'Evaluated on 128 prompts. Data: jsonl, path=data/math.jsonl. Model: not known.'
  """
  count, samples = setup.get("prompts"), setup.get("samples") or 1
  text = f"Evaluated on {'some' if count is None else count} prompt{'' if count == 1 else 's'}"
  if samples > 1:
    text += f", {samples} answers to each"
  text += f". Data: {listed(setup.get('data'))}. Model: {listed(setup.get('model'))}."
  temperature, limit = setup.get("temperature"), setup.get("max_tokens")
  if temperature is not None:
    text += f" Temperature {temperature:g}{' (greedy)' if temperature == 0 else ''}"
    text += "." if limit is None else f", at most {limit} tokens."
  if asked := setup.get("asked"):
    text += f" Every prompt was asked for each of {', '.join(asked)}."
  return text


def warning(setup: Mapping[str, Any]) -> str | None:
  """What must be said of prompts that training saw; None if there is nothing to say.

  >>> warning(dict(prompts=8, training_prompts=2, compared_with=100, of=100)).partition(":")[0]
  'SOME ARE TRAINING PROMPTS'
  """
  seen, count = setup.get("training_prompts"), setup.get("prompts")
  if seen is None:
    return "It is not known whether these prompts are training prompts: they were not compared."
  looked, of = setup.get("compared_with", 0), setup.get("of", 0)
  part = f" (only {looked} of {of} training prompts were looked at)" if looked < of else ""
  if not seen:
    return f"None of these prompts was found in the training data{part}." if part else None
  known = "THESE ARE THE TRAINING PROMPTS" if seen == count else "SOME ARE TRAINING PROMPTS"
  return (
    f"{known}: {seen} of the {count} evaluation prompts stand in the training data, too"
    f"{part if seen < count else ''}. What is measured on them does not tell how the model answers "
    "new prompts."
  )


def tell(setup: Mapping[str, Any], say: Callable[[str], None] | None = None) -> None:
  """Says both; `say` gets the lines instead of standard error.

  >>> tell(dict(prompts=8, training_prompts=0, compared_with=100, of=100), print)
  Evaluated on 8 prompts. Data: not known. Model: not known.
  """
  say = say or to_stderr
  say(described(setup))
  if told := warning(setup):
    say(f"WARNING: {told}")


def listed(section: Any) -> str:
  """A section of a config in one line.

  >>> listed({"path": "a.jsonl", "fn": "jsonl", "render": {"fn": "plain"}})
  'jsonl, path=a.jsonl, render=(plain)'
  """
  if not isinstance(section, Mapping):
    return "not known" if section is None else str(section)
  own = [str(section["fn"])] if "fn" in section else []
  rest = ((k, v) for k, v in section.items() if k != "fn")
  return ", ".join(
    [*own, *(f"{k}=({listed(v)})" if isinstance(v, Mapping) else f"{k}={v}" for k, v in rest)]
  )

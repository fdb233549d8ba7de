"""Functions that show a budget to the policy: (prompt, target, level) -> Rendered.

`templates` is one text for all levels, or one text for each. The target replaces "{target}".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lcrl.tasks.task import Messages, Prompt, Render, Rendered

Templates = str | Sequence[str]


def suffix(templates: Templates, *, train_plain: bool = False) -> Render:
  """Adds the text to the last message.

  Source: L1 (arXiv:2503.04697) asks " Think for {target} tokens."; TLDR has a word for each level;
  Adaptive Deep Reasoning asks for one of two modes and trains without the instruction.

  Args:
    templates: as above.
    train_plain: trains on the prompt without the addition.
  """
  fill = _filled(templates)

  def render(prompt: Prompt, target: int, level: int) -> Rendered:
    return Rendered(
      _add(prompt.messages, fill(target, level)),
      train_messages=prompt.messages if train_plain else None,
    )

  return render


def system(templates: Templates) -> Render:
  """Adds the text to the system message, or to a new one if there is none.

  Source: ThinkPrune (arXiv:2504.01296) states the generation limit there.
  """
  fill = _filled(templates)

  def render(prompt: Prompt, target: int, level: int) -> Rendered:
    text = fill(target, level)
    if prompt.messages[0]["role"] != "system":
      return Rendered(({"role": "system", "content": text}, *prompt.messages))
    return Rendered((*_add(prompt.messages[:1], text), *prompt.messages[1:]))

  return render


def prefix(templates: Templates, *, counts: bool = False) -> Render:
  """Forces the response to begin with the text.

  Source: HBPO (arXiv:2507.15844) states the budget there and lets it count; AdaCtrl's user puts
  "[Easy]" or "[Hard]" there (arXiv:2505.18822).

  Args:
    templates: as above.
    counts: the forced tokens train like sampled ones and count in lengths and caps; otherwise they
      are context, as the prompt is.
  """
  fill = _filled(templates)

  def render(prompt: Prompt, target: int, level: int) -> Rendered:
    return Rendered(prompt.messages, prefix=fill(target, level), prefix_counts=counts)

  return render


def reference_words(template: str = "\nAnswer in {words} words.") -> Render:
  """Asks for as many words, between white space, as the reference answer has.

  It takes most of the length confound out of ROUGE, F1 and judges.
  Source: L-Eval's length-instruction-enhanced evaluation (arXiv:2307.11088).

  Args:
    template: added to the last message, with {words}.
  """

  def render(prompt: Prompt, target: int, level: int) -> Rendered:
    del target, level
    words = len(prompt.reference.split()) if isinstance(prompt.reference, str) else 0
    if not words:
      raise ValueError(f"prompt {prompt.id} has no reference answer whose words could be counted.")
    return Rendered(_add(prompt.messages, template.replace("{words}", str(words))))

  return render


def _filled(templates: Templates) -> Callable[[int, int], str]:
  texts = [templates] if isinstance(templates, str) else list(templates)
  if not texts:
    raise ValueError(f"templates must be a text, or a text for each level, got {templates!r}.")

  def fill(target: int, level: int) -> str:
    if len(texts) > 1 and not 0 <= level < len(texts):
      raise ValueError(f"The budget's level is {level}; there are {len(texts)} templates.")
    return texts[level if len(texts) > 1 else 0].replace("{target}", str(target))

  return fill


def _add(messages: Messages, text: str) -> Messages:
  *before, last = messages
  return (*before, {**last, "content": last["content"] + text})

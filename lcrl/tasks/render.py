"""How a budget shows in a prompt: (prompt, target, level) -> Rendered."""

from __future__ import annotations

from collections.abc import Sequence

from lcrl.tasks.task import Messages, Prompt, Render, Rendered


def suffix(templates: str | Sequence[str], *, train_plain: bool = False) -> Render:
  """Adds to the last message what the budget's level says, "{target}" being its target.

  Source: L1 (arXiv:2503.04697) asks " Think for {target} tokens."; one template is used at every
  level, several are indexed by it.

  Args:
    templates: one text, or one for each level.
    train_plain: trains on the prompt without the addition.
  """
  texts = [templates] if isinstance(templates, str) else list(templates)

  def render(prompt: Prompt, target: int, level: int) -> Rendered:
    if len(texts) > 1 and not 0 <= level < len(texts):
      raise ValueError(f"The budget's level is {level}; there are {len(texts)} templates.")
    text = texts[level if len(texts) > 1 else 0].replace("{target}", str(target))
    return Rendered(
      _add(prompt.messages, text), train_messages=prompt.messages if train_plain else None
    )

  return render


def _add(messages: Messages, text: str) -> Messages:
  *before, last = messages
  return (*before, {**last, "content": last["content"] + text})

"""Names the command that converts a published layout, for errors of those who read rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_LAYOUTS = (  # columns that only this layout has, and the set that converts it
  (("reward_model",), "problems"),
  (("Correct Answer",), "gpqa"),
  (("problem", "solution"), "problems"),
  (("completions",), "pairs"),
  (("chosen_response",), "pairs"),
  (("chosen", "conversations"), "pairs"),
  (("conversations",), "conversations"),
)


def converting_command(row: Mapping[str, Any]) -> str:
  """A sentence to append to an error; empty for a row of no known layout.

  >>> converting_command({"conversations": []})
  ' `lcrl-data conversations --from=FILE --out=NEW` converts this layout.'
  >>> converting_command({"prompt": "1 + 2?"})
  ''
  """
  for columns, name in _LAYOUTS:
    if all(column in row for column in columns):
      command = f"lcrl-data {name} --from=FILE --out=NEW"
      return f" `{command}` converts this layout."
  return ""

"""Instructions that published prompts carry around a problem.

A config asks for the form of the answer in its own words (`task.template`), so they are cut.
"""

from __future__ import annotations

import re

_BEFORE_OR_AFTER = [  # of DAPO's set, and of verl's examples
  re.compile(
    r"\s*Solve the following math problem step by step\.\s*"
    r"(?:The last line of your response should be of the form Answer: \$\w+ \(without quotes\) "
    r"where \$\w+ is the answer to the problem\.)?\s+"
  ),
  re.compile(
    r'\s*Remember to put your answer on its own line after "Answer:"'
    r"(?:, and you do not need to use a \\boxed command)?\.\s*$"
  ),
  re.compile(
    r"\s*Let's think step by step and output the final answer "
    r'(?:after "####"|within \\boxed\{\})\.\s*$'
  ),
  re.compile(
    r"\s*(?:Please reason step by step, and |Please )?put your final answer "
    r"within \\boxed\{\}\.\s*$",
    re.IGNORECASE,
  ),
]


def without_instruction(text: str) -> str:
  r"""The problem alone.

  >>> without_instruction("1 + 1? Please put your final answer within \\boxed{}.")
  '1 + 1?'
  """
  for instruction in _BEFORE_OR_AFTER:
    text = instruction.sub("", text)
  return text

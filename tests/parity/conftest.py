"""These compare with other programs live: `make test-parity` runs them, in an environment of its
own."""

import importlib.util
from pathlib import Path

NEEDS = {"llama_cpp_parity.py": "xllamacpp"}  # the others need torch
collect_ignore = [
  path.name
  for path in Path(__file__).parent.glob("*_parity.py")
  if importlib.util.find_spec(NEEDS.get(path.name, "torch")) is None
]

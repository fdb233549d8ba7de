"""What a verifier's worker imports for a benchmark: nothing that takes long."""

import time


def patient(response: str, reference: str, *, seconds: float) -> float:
  """1 for a response of an even number of characters, after so long."""
  del reference
  time.sleep(seconds)
  return float(len(response) % 2 == 0)

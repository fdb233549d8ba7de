"""How long the answers to each prompt were, so that the sampler starts the longest first."""

from __future__ import annotations

import numpy as np


class LengthHistory:
  """A moving mean of the tokens of a prompt's answers.

  It decides an order and no random number, so it is on the host and in no checkpoint.

  >>> history = LengthHistory()
  >>> history.observe(np.array([7, 3]), np.array([[10, 30], [50, 50]]))
  >>> history.expected(np.array([3, 7, 8])).tolist()  # 8 is new: as long as the others
  [50.0, 20.0, 35.0]
  """

  def __init__(self, weight: float = 0.5):
    self._weight = weight  # of the newest answers
    self._means: dict[int, float] = {}

  def observe(self, prompt_ids: np.ndarray, lengths: np.ndarray) -> None:
    """prompt_ids [B], lengths [B, G]."""
    for prompt, mean in zip(prompt_ids.tolist(), lengths.mean(axis=1).tolist(), strict=True):
      old = self._means.get(prompt, mean)
      self._means[prompt] = old + self._weight * (mean - old)

  def expected(self, prompt_ids: np.ndarray) -> np.ndarray:
    """[B] -> [B] float32; of new prompts the mean of all."""
    usual = float(np.mean([*self._means.values()])) if self._means else 0.0
    means = [self._means.get(prompt, usual) for prompt in prompt_ids.tolist()]
    return np.array(means, np.float32)

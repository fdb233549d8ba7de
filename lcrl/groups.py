"""Flat rows of another trainer as the groups [B, G] that rewards and advantages compare, and back.

NumPy on the host: trainers in torch hold one row a response and say by a label whose prompt it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["Groups"]


def __dir__() -> list[str]:
  return __all__


class Groups:
  """Rows with equal labels are a group; rows may stand in any order and groups differ in size.

  `valid` [B, G] is False where a smaller group is padded. Groups are in ascending order of their
  labels, and rows of a group in the order of the batch.

  >>> groups = Groups(["b", "a", "b"])
  >>> print(groups([10, 20, 30]))
  [[20  0]
   [10 30]]
  >>> print(groups.rows(groups([10, 20, 30])))
  [10 20 30]
  """

  def __init__(self, labels: Any):
    """Args: labels [N, ...], of any type that NumPy sorts, such as the tokens of each prompt."""
    labels = np.asarray(labels)
    axis = 0 if labels.ndim > 1 else None  # objects, such as text of any length, have no axes
    if not len(labels):
      raise ValueError("labels must name at least one row, got none.")
    self.labels, group = np.unique(labels, return_inverse=True, axis=axis)
    self._group = group.reshape(-1)
    order = np.argsort(self._group, kind="stable")
    first = np.searchsorted(self._group[order], np.arange(len(self.labels)))
    self._slot = np.empty_like(self._group)
    self._slot[order] = np.arange(len(order)) - first[self._group[order]]
    self.valid = self(np.ones(len(order), bool))

  def __call__(self, rows: Any) -> np.ndarray:
    """[N, ...] -> [B, G, ...], padded with zeros."""
    rows = np.asarray(rows)
    if rows.shape[:1] != self._group.shape:
      raise ValueError(f"rows must be [{len(self._group)}, ...], as labels are, got {rows.shape}.")
    grouped = np.zeros((len(self.labels), self._slot.max() + 1, *rows.shape[1:]), rows.dtype)
    grouped[self._group, self._slot] = rows
    return grouped

  def rows(self, grouped: Any) -> Any:
    """[B, G, ...] -> [N, ...], in the order of the labels given."""
    if grouped.shape[:2] != self.valid.shape:
      raise ValueError(f"grouped must be {[*self.valid.shape]} and more, got {grouped.shape}.")
    return grouped[self._group, self._slot]

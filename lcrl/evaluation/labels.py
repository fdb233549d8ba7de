"""Names in pictures: beside points, and at the ends of lines."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

__all__ = ["name_lines", "name_points", "short"]

DIRECTIONS = [(np.cos(a), np.sin(a)) for a in np.deg2rad([35, -35, 145, -145, 0, 180, 90, -90])]
LONGEST = 32  # characters
DISTANCES = (11, 18, 28, 42, 60)  # points


def short(name: str) -> str:
  """The name, or the end of a long name; runs differ in their ends.

  >>> short("laser")
  'laser'
  >>> short("runs/of/a/very/long/name/of/a/run/laser_d/seed0")
  '…ong/name/of/a/run/laser_d/seed0'
  """
  return name if len(name) <= LONGEST else "\u2026" + name[1 - LONGEST :]


def _lay_out(ax: Axes) -> None:
  figure: Any = ax.figure
  figure.draw_without_rendering()


def name_points(ax: Axes, points: Sequence[tuple[float, float, str, str]], ink: np.ndarray) -> None:
  """Writes names (x, y, name, colour) beside their points, where they cover the least of the ink
  [K, 2]. A line connects a distant name with its point. The axes must have their last size: legends
  come first."""
  _lay_out(ax)
  ink = ax.transData.transform(ink)
  taken: list[Bbox] = []
  for x, y, name, colour in points:
    label = ax.annotate(short(name), (x, y), (0, 0), textcoords="offset points", color=colour)
    best: tuple[float, Any, Any] = (np.inf, None, None)
    for distance, (dx, dy) in itertools.product(DISTANCES, DIRECTIONS):
      placement = {
        "position": (distance * dx, distance * dy),
        "ha": "center" if abs(dx) < 0.1 else "left" if dx > 0 else "right",
        "va": "center" if abs(dy) < 0.1 else "bottom" if dy > 0 else "top",
      }
      label.set(**placement)
      box = label.get_window_extent().padded(3)
      covered = ((ink > box.min) & (ink < box.max)).all(1).sum() + 20 * box.count_overlaps(taken)
      inside = ax.bbox.containsx(box.x0) and ax.bbox.containsx(box.x1)
      inside = inside and ax.bbox.containsy(box.y0) and ax.bbox.containsy(box.y1)
      cost = 3 * covered + 60 * (not inside) + distance / 20
      best = min(best, (cost, placement, box), key=lambda candidate: candidate[0])
    label.set(**best[1])
    taken.append(best[2])
    if np.hypot(*best[1]["position"]) > DISTANCES[1]:
      arrow = {"arrowstyle": "-", "color": colour, "lw": 0.7, "shrinkA": 1, "shrinkB": 5}
      ax.annotate("", (x, y), best[1]["position"], textcoords="offset points", arrowprops=arrow)


def name_lines(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
  """Writes names (x, y, name, colour) to the right of the ends of their lines, without overlap."""
  _lay_out(ax)
  right = max((end[0] for end in ends), default=0.0)
  points_a_pixel = 72 / ax.figure.dpi
  lowest = -np.inf
  for _, y, name, colour in sorted(ends, key=lambda end: end[1]):
    height = ax.transData.transform((right, y))[1] * points_a_pixel
    lowest = max(height, lowest + 14)
    ax.annotate(
      short(name),
      (right, y),
      (8, lowest - height),
      textcoords="offset points",
      va="center",
      color=colour,
      annotation_clip=False,
    )

"""Names in pictures stand where the picture, once laid out, has room for them."""

import itertools

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from lcrl.evaluation.labels import name_points
from lcrl.evaluation.plots import STYLE, dense


def test_names_cover_neither_lines_nor_each_other():
  x, y = np.array([150.0, 160.0, 170.0, 300.0]), np.array([30.0, 40.0, 31.0, 35.0])
  ink = np.concatenate([dense(x, y), dense(x, y + 3)])
  with matplotlib.rc_context(STYLE):
    figure = Figure(figsize=(9, 3))
    left, right = figure.subplots(1, 2)
    for ax in (left, right):
      for up in (0, 3):
        ax.plot(x, y + up, label=f"line {up}")
      ax.margins(0.15)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center")
    name_points(
      right, [(*at, f"named {i}", "k") for i, at in enumerate(zip(x, y, strict=True))], ink
    )
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in right.texts if text.get_text()]
  assert len(boxes) == 4
  assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
  shown = right.transData.transform(ink)
  assert not any(((shown > box.min) & (shown < box.max)).all(1).any() for box in boxes)
  for box in boxes:
    assert right.bbox.x0 <= box.x0
    assert box.x1 <= right.bbox.x1

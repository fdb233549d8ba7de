"""How closely answers follow the budget that their prompt asks for. NumPy, on the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lcrl.evaluation.measures import measure

__all__ = ["Asked", "asked_budgets", "asked_efforts", "asked_point", "following", "obedience"]


class Asked(NamedTuple):
  """A budget that a prompt shows: a target in tokens, a level (the prompt template), or both; or an
  effort, which is both."""

  target: int | None  # None: the cap, as the prompt of a method without targets shows it
  level: int = 0
  effort: float | None = None

  @property
  def label(self) -> str:
    """
    >>> Asked(512).label, Asked(None, 2).label, Asked(512, 1, 0.25).label
    ('512 tokens', 'level 2', 'effort 0.25')
    """
    if self.effort is not None:
      return f"effort {self.effort:g}"
    return f"level {self.level}" if self.target is None else f"{self.target} tokens"


def asked_budgets(
  targets: Sequence[int] | None, levels: Sequence[int] | None, *, field: str = "eval"
) -> tuple[Asked, ...]:
  """The budgets of an evaluation: each target, each level, or pairs of both in their order.

  >>> [(one.target, one.level) for one in asked_budgets((256, 512), None)]
  [(256, 0), (512, 0)]

  Raises:
    ValueError: targets or levels are not in ascending order, or targets below 1, or there are as
      many of one as not of the other.
  """
  targets, levels = tuple(targets or ()), tuple(levels or ())
  for name, values, least in (("targets", targets, 1), ("levels", levels, 0)):
    if list(values) != sorted(set(values)) or any(value < least for value in values):
      raise ValueError(
        f"{field}.{name} must ascend and be at least {least}, got {', '.join(map(str, values))}."
      )
  if targets and levels and len(targets) != len(levels):
    raise ValueError(
      f"{field} has {len(targets)} targets and {len(levels)} levels: name one level for each "
      "target, or only one of the two."
    )
  return tuple(
    Asked(targets[i] if targets else None, levels[i] if levels else 0)
    for i in range(max(len(targets), len(levels)))
  )


def asked_efforts(
  efforts: Sequence[float],
  budget: Mapping[str, Any],
  *,
  field: str = "eval",
  by_level: bool = True,
) -> tuple[Asked, ...]:
  """The budgets of an evaluation at several efforts, with target and level as in `budgets.effort`.

  Args:
    efforts: in ascending order.
    budget: the section of the config.
    field: of the evaluation.
    by_level: prompts show the level; else the target alone, and any effort in the budget's range
      may be asked for.
  Raises:
    ValueError: the budget has no efforts, or `efforts` are not in order, or one lies outside those
      of the budget, or none of its levels shows it.

  >>> section = dict(fn="effort", efforts=(0.25, 1.0), tokens=100, cap=100)
  >>> asked_efforts((0.5,), section, by_level=False)
  (Asked(target=50, level=0, effort=0.5),)
  """
  if budget.get("fn") != "effort":
    raise ValueError(
      f"{field}.efforts needs budget.fn='effort', which says what an effort asks for, got "
      f"{budget.get('fn')!r}."
    )
  if list(efforts) != sorted(set(efforts)):
    raise ValueError(f"{field}.efforts must ascend, got {', '.join(map(str, efforts))}.")
  known = list(budget["efforts"])
  listed, found = ", ".join(f"{effort:g}" for effort in known), []
  for effort in efforts:
    if not min(known) <= effort <= max(known):
      raise ValueError(
        f"{field}.efforts has {effort:g}, which lies outside {min(known):g} to {max(known):g}, the "
        "efforts of the budget."
      )
    if by_level and effort not in known:
      raise ValueError(
        f"{field}.efforts has {effort:g}, for which there is no template: the budget has {listed}."
      )
    level = known.index(effort) if effort in known else 0
    found.append(Asked(max(1, round(effort * budget["tokens"])), level, effort))
  return tuple(found)


def obedience(tokens: ArrayLike, target: float) -> dict[str, float]:
  """Differences between the tokens of answers and the target that all were asked for.

    error = mean(tokens - target),  error_share = error / target,
    absolute_error = mean |tokens - target|,  within_10 = mean(|tokens - target| <= target / 10)

  Sources: L1 (arXiv:2503.04697) for errors, AdaCtrl (arXiv:2505.18822) for shares within a range.

  >>> obedience([90, 120], 100)
  {'error': 5.0, 'error_share': 0.05, 'absolute_error': 15.0, 'within_10': 0.5}
  """
  gap = np.asarray(tokens, np.float64).ravel() - target
  if not gap.size:
    raise ValueError("there are no answers.")
  return {
    "error": float(gap.mean()),
    "error_share": float(gap.mean() / target),
    "absolute_error": float(np.abs(gap).mean()),
    "within_10": float(np.mean(np.abs(gap) <= target / 10)),
  }


def following(tokens: Sequence[ArrayLike], targets: Sequence[float]) -> dict[str, float | None]:
  """How tokens move with what was asked, over all answers to all targets.

  Args:
    tokens: of the answers to each target.
    targets: in tokens, or any other numbers that stand for the budgets, such as levels.
  Returns: correlation (Pearson's; None if tokens or targets do not vary) and slope (least squares,
    tokens for each token that was asked: 1 follows, 0 ignores; None if targets do not vary).

  >>> following([[100, 120], [210, 190]], [100, 200])["slope"]
  0.9
  """
  parts = [np.asarray(t, np.float64).ravel() for t in tokens]
  y, x = np.concatenate(parts), np.repeat(np.asarray(targets, np.float64), [*map(len, parts)])
  x, y = x - x.mean(), y - y.mean()
  xx, yy, xy = float(x @ x), float(y @ y), float(x @ y)
  return {
    "correlation": xy / np.sqrt(xx * yy) if xx > 0 and yy > 0 else None,
    "slope": xy / xx if xx > 0 else None,
  }


def asked_point(answers: Mapping[str, np.ndarray], asked: Asked) -> dict[str, Any]:
  """One point of the table of budgets: label, target, level, `measure` and `obedience`.

  Args:
    answers: correct, lengths, valid, truncated [B, G] and difficulty [B].
    asked: the budget that all their prompts showed.
  """
  fields = ("correct", "lengths", "difficulty", "valid", "truncated")
  more: dict[str, Any] = {name: answers.get(name) for name in ("end", "thinking_cut")}
  point = measure(**{name: answers[name] for name in fields}, **more)
  point.pop("by_difficulty")
  point |= {"label": asked.label, "target": asked.target, "level": asked.level}
  if asked.effort is not None:
    point["effort"] = asked.effort
  if asked.target is None:
    return point
  return point | obedience(answers["lengths"][answers["valid"]], asked.target)

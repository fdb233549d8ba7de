"""Metrics of a step, a check before the first update, and an alarm for collapse.

All of them read verdicts (`correct`, `outcome`) besides the shaped rewards, so that a rising reward
cannot hide a falling accuracy.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.masked import masked_mean
from lcrl.training.metrics import Max, Mean, Metrics, Sum
from lcrl.types import Batch, Outcome

BatchStats = dict[str, np.ndarray]
QUANTILES = (10, 50, 90)  # of lengths, in per cent


def batch_stats(batch: Batch) -> dict[str, jax.Array]:
  """The [B, G] arrays of a batch that metrics need: budgets as "budget/...", and the lengths that
  the reward compares with as "target/..."."""
  r, advantages = batch.rollouts, batch.advantages
  if advantages.ndim == 3:
    advantages = masked_mean(advantages, r.mask, axis=-1)
  return {
    "advantages": advantages,
    "correct": r.correct,
    "difficulty": jnp.broadcast_to(r.difficulty[:, None], r.correct.shape),
    "keep": batch.keep,
    "lengths": r.lengths,
    "outcome": r.outcome,
    "rewards": batch.rewards,
    "scores": r.scores,
    "truncated": r.truncated,
    "valid": r.valid,
    "budget/target": r.budget.target,
    "budget/cap": r.budget.cap,
  } | {f"target/{name}": x for name, x in (batch.targets or {}).items()}


def step_metrics(f: BatchStats) -> Metrics:
  """Accuracy, rewards, targets, kept fraction, and lengths by correctness and difficulty."""
  valid, correct, lengths = f["valid"], f["correct"], f["lengths"]
  mean = lambda x, where: Mean(float(x[where].sum()), int(where.sum()))
  right, wrong = valid & correct, valid & ~correct
  groups = valid.any(-1)
  metrics: Metrics = {
    "accuracy": mean(correct, valid),
    "score": mean(f["scores"], valid),
    "reward": mean(f["rewards"], valid),
    "length/mean": mean(lengths, valid),
    "length/right": mean(lengths, right),
    "length/wrong": mean(lengths, wrong),
    "length/max": Max(int(np.where(valid, lengths, 0).max())),
    "truncated": mean(f["truncated"], valid),
    "kept_fraction": mean(f["keep"], valid),
    "groups/all_right": mean((correct | ~valid).all(-1), groups),
    "groups/all_wrong": mean((~correct | ~valid).all(-1), groups),
    # Right answers that the length term turned into bad examples.
    "negative_adv_on_correct": mean(f["advantages"] < 0, right & f["keep"]),
  }
  for side, where in (("", valid), ("right_", right), ("wrong_", wrong)):
    for q in QUANTILES if where.any() else ():
      metrics[f"length/{side}p{q}"] = Mean(float(np.percentile(lengths[where], q)), 1.0)
  for name in (name for name in f if name.startswith(("budget/", "target/"))):
    there = valid & np.isfinite(f[name])
    metrics[name] = mean(f[name], there)
    if name.startswith("target/"):
      # What the cap cut has not ended.
      metrics[f"within_{name}"] = mean(lengths + f["truncated"] <= f[name], right & there)
  for outcome in Outcome:
    metrics[f"outcome/{outcome.name.lower()}"] = Sum(int((f["outcome"] == outcome)[valid].sum()))
  for level in np.unique(f["difficulty"][valid]).tolist()[:16]:
    at_level = valid & (f["difficulty"] == level)
    metrics[f"accuracy/difficulty_{level}"] = mean(correct, at_level)
    metrics[f"length/difficulty_{level}"] = mean(lengths, at_level)
  return metrics


def preflight(f: BatchStats, *, rounds: int, sampling_s: float) -> tuple[str, list[str]]:
  """What the first rollouts say about the run: a block to read, and warnings.

  A run whose groups are all right or all wrong, whose answers are all cut, or whose rewards are
  all equal has no gradient to follow.
  """
  values = {name: metric.value() for name, metric in step_metrics(f).items()}
  rewards = f["rewards"][f["valid"]]
  spread = f["rewards"].max(-1, initial=-np.inf, where=f["valid"]) - f["rewards"].min(
    -1, initial=np.inf, where=f["valid"]
  )
  trains = float(f["keep"].any(-1).mean())
  stats = device_memory()
  lines = {
    "accuracy": f"{values['accuracy']:.1%}",
    "mean length": f"{values['length/mean']:.1f} tokens, {values['truncated']:.1%} cut at the cap",
    "groups": f"{values['groups/all_right']:.1%} all right, {values['groups/all_wrong']:.1%} all "
    f"wrong; {trains:.1%} train after the filter ({rounds} rounds of sampling)",
    "reward": f"{rewards.min():.3g} to {rewards.max():.3g}, spread within a group "
    f"{spread[f['valid'].any(-1)].mean():.3g}",
    "sampling": f"{f['lengths'].sum() / sampling_s:,.0f} tokens/s with compilation",
    "memory": stats or "not reported by this device",
  }
  warnings = []
  if values["truncated"] > 0.5:
    warnings.append("more than half of the answers are cut at the cap: raise train.max_tokens.")
  if not np.isfinite(rewards).all():
    warnings.append(f"{(~np.isfinite(rewards)).sum()} of {rewards.size} rewards are not finite.")
  elif trains == 0 or not (np.abs(f["advantages"]) > 0).any():
    warnings.append("no group trains: rewards are equal inside every group, or all are filtered.")
  elif trains < 0.1:
    warnings.append(f"only {trains:.1%} of the groups train.")
  if values["accuracy"] == 0:
    warnings.append("no answer is right: check the verifier, the template and the answer format.")
  unscored = values["outcome/timeout"] + values["outcome/crash"]
  if unscored > 0.05 * f["valid"].sum():
    warnings.append(f"the verifier failed on {unscored:.0f} answers (timeouts and crashes).")
  block = "\n".join(f"  {name:<12} {text}" for name, text in lines.items())
  return "Before the first step:\n" + block, warnings


def state_section(steps: Sequence[Mapping[str, float]]) -> list[str]:
  """A section of a report: budgets, targets and states of the first and of the last step that has
  them. Nothing, if there are none."""
  prefixes = ("budget/", "target/", "within_target/", "state/")
  first: dict[str, Any] = {}
  last: dict[str, Any] = {}
  for step in steps:
    numbers = {name: x for name, x in step.items() if name.startswith(prefixes)}
    first, last = numbers | first, last | numbers
  cell = lambda x: "-" if x is None else f"{x:.4g}"
  rows = [f"| `{name}` | {cell(first[name])} | {cell(last[name])} |" for name in sorted(last)]
  head = ["## Targets and states", "", "| | first step | last step |", "|---|---:|---:|"]
  return ["\n".join([*head, *rows])] if rows else []


def device_memory() -> str:
  """Memory in use and its limit on the first local device; empty where it does not say."""
  stats: Any = jax.local_devices()[0].memory_stats()
  if not stats:
    return ""
  used, limit = stats.get("peak_bytes_in_use", 0), stats.get("bytes_limit", 0)
  return f"{used / 2**30:.1f} GiB at most so far, of {limit / 2**30:.1f} GiB"


class CollapseAlarm:
  """Rings when length and accuracy fall together: the sign of a length term that won.

  Compares the means of the last `window` steps with those when accuracy was best: it rings when
  accuracy has lost the share `accuracy_drop` and length is below the share `length_share`.
  """

  def __init__(self, *, window: int = 5, accuracy_drop: float = 0.25, length_share: float = 0.5):
    self._accuracy: collections.deque[float] = collections.deque(maxlen=window)
    self._length: collections.deque[float] = collections.deque(maxlen=window)
    self._drop, self._share = accuracy_drop, length_share
    self._best = (0.0, 0.0)  # accuracy, and length at that time
    self.rung = False

  def __call__(self, accuracy: float, length: float) -> bool:
    """True once, at the first step where it rings."""
    self._accuracy.append(accuracy)
    self._length.append(length)
    if len(self._accuracy) < (self._accuracy.maxlen or 0):
      return False
    now, tokens = float(np.mean(self._accuracy)), float(np.mean(self._length))
    self._best = max(self._best, (now, tokens))
    best, then = self._best
    rings = now < (1 - self._drop) * best and tokens < self._share * then
    first, self.rung = rings and not self.rung, self.rung or rings
    return first

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
from lcrl.types import Batch, EndReason, Outcome, Rollouts, end_name

BatchStats = dict[str, np.ndarray]
QUANTILES = (10, 50, 90)  # of lengths, in per cent


def batch_stats(batch: Batch, terms: Mapping[str, jax.Array] | None = None) -> dict[str, jax.Array]:
  """The [B, G] arrays of a batch that metrics need: budgets as "budget/...", the lengths that the
  reward compares with as "target/...", and its `terms` (`Stage.terms`) as "term/..."."""
  r, advantages = batch.rollouts, batch.advantages
  if advantages.ndim == 3:
    advantages = masked_mean(advantages, r.mask, axis=-1)
  return {
    "advantages": advantages,
    "correct": r.correct,
    "difficulty": jnp.broadcast_to(r.difficulty[:, None], r.correct.shape),
    "end_log_probs": end_log_probs(r),
    "keep": batch.keep,
    "lengths": r.lengths,
    "level": r.budget.level,
    "outcome": r.outcome,
    "rewards": batch.rewards,
    "scores": r.scores,
    "truncated": r.truncated,
    "valid": r.valid,
    **({} if r.end is None else {"end": r.end}),
    **({} if r.thinking_cut is None else {"thinking_cut": r.thinking_cut}),
    **({} if r.forced is None else {"forced": r.forced.sum(-1), "written": r.written.sum(-1)}),
    "budget/target": r.budget.target,
    "budget/cap": r.budget.cap,
    **{f"target/{name}": x for name, x in (batch.targets or {}).items()},
    **{f"term/{name}": x for name, x in (terms or {}).items()},
  }


def end_log_probs(r: Rollouts) -> jax.Array:
  """Log-prob of the end token of each response, under its sampler; nan where something else ended
  it. [B, G] float32."""
  last = r.mask.shape[-1] - 1 - jnp.argmax(r.written[..., ::-1], -1, keepdims=True)
  at_last = lambda x: jnp.take_along_axis(x, last, -1)[..., 0]
  at_token = ~r.truncated & (r.end_reasons == EndReason.END_TOKEN)
  ended = r.mask.any(-1) & at_last(r.drawn) & at_token
  return jnp.where(ended, at_last(r.sampler_log_probs), jnp.nan)


def step_metrics(f: BatchStats) -> Metrics:
  """Accuracy, rewards, targets, kept fraction; lengths by correctness, difficulty and level."""
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
    **_end_shares(f),
    "groups/all_right": mean((correct | ~valid).all(-1), groups),
    "groups/all_wrong": mean((~correct | ~valid).all(-1), groups),
    **_length_term(f, right),
  }
  ended = valid & np.isfinite(f["end_log_probs"])
  metrics["end_probability"] = mean(np.exp(f["end_log_probs"]), ended)
  for side, where in (("", valid), ("right_", right), ("wrong_", wrong)):
    for q in QUANTILES if where.any() else ():
      metrics[f"length/{side}p{q}"] = Mean(float(np.percentile(lengths[where], q)), 1.0)
  for name in (name for name in f if name.startswith(("budget/", "target/"))):
    there = valid & np.isfinite(f[name])
    metrics[name] = mean(f[name], there)
    if name.startswith("target/"):
      # What the cap cut has not ended.
      metrics[f"within_{name}"] = mean(lengths + f["truncated"] <= f[name], right & there)
  for name in (name for name in f if name.startswith("term/")):
    metrics[name] = mean(f[name], valid)
  for outcome in Outcome:
    metrics[f"outcome/{outcome.name.lower()}"] = Sum(int((f["outcome"] == outcome)[valid].sum()))
  # Budgets of one level give 0 to all.
  for name in ("difficulty", "level") if f["level"][valid].any() else ("difficulty",):
    for value in np.unique(f[name][valid]).tolist()[:16]:
      there = valid & (f[name] == value)
      metrics[f"accuracy/{name}_{value}"] = mean(correct, there)
      metrics[f"length/{name}_{value}"] = mean(lengths, there)
  return metrics


def _end_shares(f: BatchStats) -> Metrics:
  """Shares of answers by what ended them and of those whose thinking was cut, and of tokens that
  were forced, where something else than an end token or the cap may end an answer."""
  valid = f["valid"]
  mean = lambda x, of: Mean(float(x[valid].sum()), float(of[valid].sum()))
  metrics: Metrics = {}
  if "end" in f:
    usual = (EndReason.END_TOKEN, EndReason.CAP, EndReason.STOP_TEXT)
    for reason in sorted({*usual, *f["end"][valid].tolist()}):
      metrics[f"end/{end_name(reason)}"] = mean(f["end"] == reason, valid)
  if "thinking_cut" in f:
    metrics["thinking_cut"] = mean(f["thinking_cut"], valid)
  if "forced" in f:
    metrics["forced_fraction"] = mean(f["forced"], f["written"])
  return metrics


def _length_term(f: BatchStats, right: np.ndarray) -> Metrics:
  """Shares of the right answers that whatever the reward adds to the verdict made bad examples."""
  share = lambda x, where: Mean(float(x[where].sum()), int(where.sum()))
  kept, negative = right & f["keep"], f["advantages"] < 0
  groups = np.maximum(f["valid"].sum(-1, keepdims=True), 1)
  scores = np.where(f["valid"], f["scores"], 0.0)
  # An advantage of the verdict alone is positive above the group's mean score.
  good = scores >= scores.sum(-1, keepdims=True) / groups - 1e-6
  return {
    "negative_adv_on_correct": share(negative, kept),
    "length_term/negative_adv": share(negative & good, kept),
    "length_term/no_reward": share(f["rewards"] <= 0, right),
  }


def preflight(
  f: BatchStats, *, rounds: int, sampling_s: float, taught: bool = False
) -> tuple[str, list[str]]:
  """What the first rollouts say about the run: a block to read, and warnings.

  A run whose groups are all right or all wrong, whose answers are all cut, or whose rewards are
  all equal has no gradient to follow, unless it is `taught`.
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
  elif trains == 0 or not (taught or (np.abs(f["advantages"]) > 0).any()):
    warnings.append("no group trains: rewards are equal inside every group, or all are filtered.")
  elif trains < 0.1:
    warnings.append(f"only {trains:.1%} of the groups train.")
  if values["accuracy"] == 0 and not taught:
    warnings.append("no answer is right: check the verifier, the template and the answer format.")
  unscored = values["outcome/timeout"] + values["outcome/crash"]
  if unscored > 0.05 * f["valid"].sum():
    warnings.append(f"the verifier failed on {unscored:.0f} answers (timeouts and crashes).")
  block = "\n".join(f"  {name:<12} {text}" for name, text in lines.items())
  return "Before the first step:\n" + block, warnings


def state_section(steps: Sequence[Mapping[str, float]]) -> list[str]:
  """A section of a report: budgets, targets and states of the first and of the last step that has
  them. Nothing, if there are none."""
  return _first_and_last(
    "Targets and states", steps, ("budget/", "target/", "within_target/", "state/")
  )


def ends_section(steps: Sequence[Mapping[str, float]], stop_texts: Sequence[str]) -> list[str]:
  """A section of a report: what ended answers, and the stop texts that never did. Nothing, where
  end tokens and caps alone end them."""
  section = _first_and_last(
    "Ends of answers", steps, ("end/", "thinking_cut", "forced_fraction", "truncated")
  )
  if not any(name.startswith(("end/", "thinking_cut")) for step in steps for name in step):
    return []
  for k, text in enumerate(stop_texts):
    name = f"end/{end_name(EndReason.STOP_TEXT + k)}"
    if not any(step.get(name) for step in steps):
      section.append(f"**Warning. No answer ended at the stop text {text!r}.**")
  return section


def _first_and_last(
  title: str, steps: Sequence[Mapping[str, float]], prefixes: tuple[str, ...]
) -> list[str]:
  """A section with the numbers of the first and of the last step that has them."""
  first: dict[str, Any] = {}
  last: dict[str, Any] = {}
  for step in steps:
    numbers = {name: x for name, x in step.items() if name.startswith(prefixes)}
    first, last = numbers | first, last | numbers
  cell = lambda x: "-" if x is None else f"{x:.4g}"
  rows = [f"| `{name}` | {cell(first[name])} | {cell(last[name])} |" for name in sorted(last)]
  head = [f"## {title}", "", "| | first step | last step |", "|---|---:|---:|"]
  return ["\n".join([*head, *rows])] if rows else []


def truncation_section(steps: Sequence[Mapping[str, float]]) -> list[str]:
  """A section of a report: the steps at which `TruncationAlarm` rang. Nothing, if it never did."""
  alarm = TruncationAlarm()
  rang = [(row["step"], row["truncated"]) for row in steps if alarm(row.get("truncated") or 0.0)]
  if not rang:
    return []
  listed = ", ".join(f"{step:.0f} ({share:.1%})" for step, share in rang[:10])
  listed += f" and {len(rang) - 10} more times" if len(rang) > 10 else ""
  return [
    "## Truncated answers",
    f"**Warning. {TruncationAlarm.SAYS} from step {listed} on.** The verdict on such an answer is "
    "that on an unfinished one: raise `train.max_tokens`, or reward shorter answers.",
  ]


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


class TruncationAlarm:
  """Rings when the share of truncated answers rises above `limit`; again after it fell to half."""

  LIMIT = 0.2
  SAYS = f"More than {LIMIT:.0%} of the answers were cut at their cap"

  def __init__(self, *, limit: float = LIMIT, above: bool = False):
    self._limit, self.above = limit, above

  def __call__(self, truncated: float) -> bool:
    """True at the steps where it rings."""
    was = self.above
    self.above = truncated > (self._limit / 2 if was else self._limit)
    return self.above and not was

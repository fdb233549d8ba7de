"""One claim of each method's paper, as far as sums can test it, and the rule that decides it.

These rules were written when results of three seeds were known, unlike those of `claims`. Each
takes a method at the coefficient with the highest AES, as the table of methods does. A unit is a
start policy with a seed; a rule reads the 95 % interval of a number over units. A claim is
reproduced if all of the interval agrees, contradicted if none of it does, and undecided otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from experiments.studies.testbed.claims import (
  REPRODUCED,
  UNTESTABLE,
  Results,
  Starts,
  Verdict,
  best_value,
  collapsed,
  line_gap,
  of,
  units,
)
from experiments.studies.testbed.tables import L1_TARGETS
from lcrl.evaluation import Estimate, seed_estimate

CONTRADICTED, UNDECIDED = "contradicted", "undecided"
MISSING = "runs are missing"
LOSS = 0.02  # of accuracy, that a claim of none allows
Rule = Callable[[Results, Starts, str], tuple[str, str]]  # ..., method -> verdict, numbers


def at_best(results: Results, starts: Starts, name: str) -> Results:
  """The runs of a method at its best coefficient; GRPO at the study's learning rate."""
  value = 1.0 if name == "grpo" else best_value(results, starts, name)
  return [r for r in of(results, name) if r["value"] == value]


def compared(
  results: Results, starts: Starts, first: str, second: str, key: str
) -> Estimate | None:
  """A number of one method minus that of another, over the units of both; None below two units."""
  number = lambda r: r.get(key)
  one, two = (units(at_best(results, starts, name), number) for name in (first, second))
  shared = [unit for unit in one if unit in two]
  if len(shared) < 2:
    return None
  return Estimate(*seed_estimate([one[unit] - two[unit] for unit in shared]))


def said(estimate: Estimate, scale: float = 1.0) -> str:
  value, low, high = (scale * x for x in estimate)
  return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def above(estimate: Estimate, bound: float = 0.0) -> str:
  """The verdict on the claim that a number is above a bound."""
  return (
    REPRODUCED if estimate.low > bound else CONTRADICTED if estimate.high < bound else UNDECIDED
  )


def both(*verdicts: str) -> str:
  """The verdict on a claim of several parts."""
  if CONTRADICTED in verdicts:
    return CONTRADICTED
  return UNDECIDED if UNDECIDED in verdicts else REPRODUCED


def shortens(results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """Fewer tokens than correctness-only GRPO, and at most 2 points of accuracy less."""
  tokens = compared(results, starts, "grpo", name, "tokens")
  accuracy = compared(results, starts, name, "grpo", "accuracy")
  if tokens is None or accuracy is None:
    return UNTESTABLE, MISSING
  verdict = both(above(tokens), above(accuracy, -LOSS))
  return verdict, f"{said(tokens)} tokens fewer; {said(accuracy, 100)} points"


def lengthens_beside(other: str, results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """More tokens than the method that differs in the bias alone."""
  tokens = compared(results, starts, name, other, "tokens")
  if tokens is None:
    return UNTESTABLE, MISSING
  return above(tokens), f"{said(tokens)} tokens more than {other}"


def keeps_accuracy(results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """At most 2 points of accuracy less than correctness-only GRPO."""
  accuracy = compared(results, starts, name, "grpo", "accuracy")
  if accuracy is None:
    return UNTESTABLE, MISSING
  return above(accuracy, -LOSS), f"{said(accuracy, 100)} points"


def never_collapses(results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """No run at any coefficient has fewer tokens than its start and less than half its accuracy."""
  runs = of(results, name)
  if not runs:
    return UNTESTABLE, MISSING
  fell = sum(collapsed(r, starts[f"{r['start']}/{r['seed']}"]) for r in runs)
  return CONTRADICTED if fell else REPRODUCED, f"{fell} of {len(runs)} runs collapse"


def truncates_less(results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """Fewer truncated answers than correctness-only GRPO."""
  share = compared(results, starts, "grpo", name, "truncated")
  if share is None:
    return UNTESTABLE, MISSING
  return above(share), f"{said(share, 100)} points of answers fewer"


def adapts(results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """A larger share of GRPO's tokens remains on the hardest problems than on the easiest."""
  runs, base = at_best(results, starts, name), at_best(results, starts, "grpo")
  tokens = lambda rows, i: units(rows, lambda r: r["by_difficulty"]["tokens"][i])
  easy, hard = ((tokens(runs, i), tokens(base, i)) for i in (0, -1))
  gaps = [hard[0][u] / hard[1][u] - easy[0][u] / easy[1][u] for u in easy[0] if u in easy[1]]
  if len(gaps) < 2:
    return UNTESTABLE, MISSING
  found = Estimate(*seed_estimate(gaps))
  return above(found), f"{said(found, 100)} points of GRPO's tokens"


def follows(results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """Tokens grow by at least half of what the prompts ask for, from the lowest level to the highest;
  where levels name no tokens, they grow."""
  runs = [r for r in at_best(results, starts, name) if r.get("by_level")]
  if len(runs) < 2:
    return UNTESTABLE, "no levels were measured"
  found = Estimate(*seed_estimate([r["by_level"][-1][1] - r["by_level"][0][1] for r in runs]))
  asked = L1_TARGETS[-1] - L1_TARGETS[0] if name.startswith("l1") else 0
  return above(found, asked / 2), f"{said(found)} tokens" + (f" of {asked} asked" if asked else "")


def beats(other: str, results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """Righter at equal tokens, each interpolated between its coefficients."""
  unit_of = lambda r: f"{r['start']}/{r['seed']}"
  gaps = []
  for unit in starts:
    own = [[r for r in of(results, which) if unit_of(r) == unit] for which in (name, other)]
    lines = [np.array(sorted((r["tokens"], r["accuracy"]) for r in rows)) for rows in own]
    gap = line_gap(*(line.reshape(-1, 2) for line in lines))
    gaps += [] if gap is None else [gap]
  if len(gaps) < 2:
    return UNTESTABLE, f"{len(gaps)} units have tokens in common with {other}"
  found = Estimate(*seed_estimate(gaps))
  return above(found), f"{said(found, 100)} points over {other}, {len(gaps)} units"


def holds_target(results: Results, starts: Starts, name: str) -> tuple[str, str]:
  """Mean tokens of two thirds of all runs lie within 10 % of their target."""
  del starts
  runs = of(results, name)
  if not runs:
    return UNTESTABLE, MISSING
  near = sum(abs(r["tokens"] - r["value"]) <= r["value"] / 10 for r in runs)
  return REPRODUCED if near >= 2 / 3 * len(runs) else CONTRADICTED, f"{near} of {len(runs)} runs"


SHORTER = "shortens answers at no loss of accuracy"
FOLLOWS = "spends as many tokens as the prompt asks for"
CLAIMS: Mapping[str, tuple[str, Rule]] = {
  **dict.fromkeys(
    ("efficient_reasoning", "laser", "laser_d", "laser_de", "hapo", "hapo_mean", "kimi"),
    (SHORTER, shortens),
  ),
  **dict.fromkeys(
    ("shorter_better", "lcr1", "dot", "qglas", "grlc", "acoer", "da_dler", "dler", "thinkprune"),
    (SHORTER, shortens),
  ),
  **dict.fromkeys(
    ("gr3", "gfpo_shortest", "gfpo_efficiency", "conciser", "crf", "o1_pruner", "pear", "mrt"),
    (SHORTER, shortens),
  ),
  **dict.fromkeys(("smart_thinker", "toggle", "grpo_lead", "a_dlp"), (SHORTER, shortens)),
  **dict.fromkeys(
    ("decs", "lapo", "aalc", "short_rl", "leash", "on_policy_sft", "anytime_reasoner"),
    (SHORTER, shortens),
  ),
  "grpo_lambda": ("does not collapse", never_collapses),
  "alp": ("spends on hard problems what it saves on easy ones", adapts),
  "gfpo_adaptive": ("spends on hard problems what it saves on easy ones", adapts),
  "hbpo": ("spends on hard problems what it saves on easy ones", adapts),
  "siri": ("is righter than one-way compression at equal tokens", partial(beats, "thinkprune")),
  "drpo": ("is righter than a length term in the reward", partial(beats, "efficient_reasoning")),
  "l1_exact": (FOLLOWS, follows),
  "l1_max": (FOLLOWS, follows),
  "tldr": (FOLLOWS, follows),
  "think_dial": (FOLLOWS, follows),
  "length_dual": ("holds the length at its target", holds_target),
  "lagrangian": ("holds the length at its target", holds_target),
  "format_length": ("reaches the accuracy of true verdicts", keeps_accuracy),
  "autorule": ("keeps accuracy while it pays for rules", keeps_accuracy),
  "luspo": ("writes longer than GSPO", partial(lengthens_beside, "gspo")),
  "soft_overlong": ("truncates less", truncates_less),
  "dapo": ("truncates less", truncates_less),
  "cosine_length": ("truncates less", truncates_less),
  "canon_length": (SHORTER, shortens),
}  # fmt: skip


def verdicts(results: Results, starts: Starts) -> list[Verdict]:
  """The claim of every method that has one."""
  found = []
  for name, (claim, rule) in CLAIMS.items():
    function = rule.func if isinstance(rule, partial) else rule
    verdict, numbers = rule(results, starts, name)
    found.append(Verdict(f"{name} {claim}", function.__doc__ or "", verdict, numbers))
  return found

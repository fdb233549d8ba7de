"""One claim of each method's paper, and the rule that decides it here.

Papers compare with the model that they began from; here it is correctness alone (GRPO) from the
same start for as many steps, which is stricter. A claim is held if the whole 95 % interval of every
number that it names agrees, not held if the whole interval of one does not, and undecided
otherwise, as it is with fewer than three seeds of the method or of GRPO. The shares that rules ask
for were set after the first runs had been seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from experiments.studies.qwen_math.methods import METHODS, ROWS
from experiments.studies.qwen_math.records import SEEDS, TASKS, Group, Study, change
from lcrl.evaluation import Estimate
from lcrl.evaluation.tables import signed

HELD, NOT, UNDECIDED = "held", "not held", "undecided"
LOSS = 0.02  # of accuracy, that a claim of none allows
Rule = Callable[[Study, Group], tuple[str, str]]  # -> verdict, numbers


class Claim(NamedTuple):
  text: str
  rule: Rule
  why: str  # it may differ at this size


class Verdict(NamedTuple):
  paper: str
  claim: str
  verdict: str
  numbers: str
  why: str


def above(estimate: Estimate, bound: float = 0.0) -> str:
  """The verdict on the claim that a number is above a bound.

  >>> above(Estimate(1.0, 0.5, 1.5)), above(Estimate(1.0, 0.5, 1.5), 2.0)
  ('held', 'not held')
  """
  return HELD if estimate.low > bound else NOT if estimate.high < bound else UNDECIDED


def both(*verdicts: str) -> str:
  return NOT if NOT in verdicts else UNDECIDED if UNDECIDED in verdicts else HELD


def said(e: Estimate, scale: float, unit: str) -> str:
  value, low, high = (scale * x for x in e)
  return f"{signed(value)} {unit} ({signed(low)} to {signed(high)})"


def shortens(study: Study, group: Group, *, least: float = 0.0, loss: float = LOSS):
  """On GSM8K test, tokens saved against GRPO above `least`, and at most `loss` less accuracy."""
  assert study.grpo is not None
  verdicts, numbers = {}, []
  for task, title in TASKS.items():
    own, base = group.points(task), study.grpo.points(task)
    if not own or not base:
      continue
    tokens = float(np.mean([p["tokens"] for p in base]))
    saved = Estimate(*(x / tokens for x in change(base, own, "tokens")))
    points = change(own, base, "accuracy")
    verdicts[task] = both(above(saved, least), above(points, -loss))
    numbers.append(f"{title}: {said(saved, 100, '% saved')}, {said(points, 100, 'points')}")
  return verdicts.get("gsm8k", UNDECIDED), "; ".join(numbers)


def adapts(study: Study, group: Group) -> tuple[str, str]:
  """A larger share of GRPO's tokens remains on MATH-500, which is harder, than on GSM8K test."""
  assert study.grpo is not None
  if not all(g.points(t) for g in (group, study.grpo) for t in ("math500", "gsm8k")):
    return UNDECIDED, "not judged on both"
  value, squares = 0.0, 0.0
  for task, sign in (("math500", 1), ("gsm8k", -1)):
    for own, side in ((group, sign), (study.grpo, -sign)):
      mean, _, high = own.mean(task, "tokens")
      value += side * math.log(mean)
      squares += ((high - mean) / mean) ** 2
  half = math.sqrt(squares)
  ratio = Estimate(*(math.exp(x) for x in (value, value - half, value + half)))
  shown = f"{ratio.value:.2f} times the share ({ratio.low:.2f} to {ratio.high:.2f})"
  return above(ratio, 1.0), shown


def collapses(study: Study, group: Group) -> tuple[str, str]:
  """Every seed ends below 5 % on GSM8K test."""
  del study
  fell = [group._replace(runs=[run]).collapsed for run in group.runs]
  verdict = HELD if all(fell) else NOT if not any(fell) else UNDECIDED
  return verdict, f"{sum(fell)} of {len(fell)} runs collapse"


def within_budget(study: Study, group: Group) -> tuple[str, str]:
  """Mean tokens on GSM8K test stay below each budget that the prompt shows."""
  del study
  spent = {budget: group.mean(name, "tokens") for budget, name in group.asked("gsm8k").items()}
  if not spent:
    return UNDECIDED, "no budgets were asked for"
  left = [Estimate(b - e.value, b - e.high, b - e.low) for b, e in spent.items()]
  numbers = ", ".join(f"{e.value:.0f} tokens of {budget}" for budget, e in spent.items())
  return both(*map(above, left)), numbers


def on_front(study: Study, group: Group) -> tuple[str, str]:
  """On GSM8K test, the curve over budgets is nowhere more than `LOSS` below a run with one."""
  if not group.asked("gsm8k"):
    return UNDECIDED, "no budgets were asked for"
  verdicts, numbers = [], []
  for row in study.curve(group)[1]["points"]:
    if row["gap"] is None:
      verdicts.append(NOT)
      numbers.append(f"{row['name']} is shorter than all of it")
    else:
      gap = Estimate(row["gap"], *row["gap_ci"])
      verdicts.append(above(gap, -LOSS))
      numbers.append(f"{row['name']}: {said(gap, 100, 'points')}")
  return both(*verdicts), "; ".join(numbers)


FRONT = "One policy that is asked for budgets is nowhere below the runs of one budget"
SMALL = "answers of a few hundred tokens have less to drop than long chains of thought"
MIXED = "most answers of the start are wrong, so groups are often ranked by length alone"
PASS = (
  f"below one pass over the {ROWS:,} training problems no problem comes twice: none has a history"
)
CLAIMS: Mapping[str, Claim] = {
  "naive": Claim("A price for every token of every answer collapses", collapses, MIXED),
  "efficient_reasoning": Claim(
    "Paying right answers less the longer they are in their group shortens, and stays right",
    shortens,
    SMALL,
  ),
  "kimi": Claim(
    "Ranking the lengths of a group, without reward for short wrong answers, shortens and stays "
    "right",
    shortens,
    f"the paper first trains without it; {MIXED}",
  ),
  "laser": Claim(
    "A bonus within one target takes less than half of the tokens and is righter (60.2 % at 4,509 "
    "tokens from 56.9 % at 10,177)",
    partial(shortens, least=0.5, loss=0.0),
    SMALL,
  ),
  "laser_d": Claim(
    "Targets by difficulty shorten (60.3 % at 3,520 tokens) and stay right", shortens, SMALL
  ),
  "alp": Claim("Hard problems keep more of their tokens than easy ones", adapts, MIXED),
  "dler": Claim(
    "Plain truncation takes 77 % of the tokens (2,466 from 10,499) and stays right",
    partial(shortens, least=0.5),
    f"the rule asks for half; {SMALL}",
  ),
  "hapo": Claim(
    "Answers become 33 to 59 % shorter and 2 to 5 % less right",
    partial(shortens, least=0.33, loss=0.05),
    PASS,
  ),
  "gr3": Claim("A length factor on the reward shortens at no loss against GRPO", shortens, SMALL),
  "shorter_better": Claim(
    "A price by the distance from the shortest right answer shortens and stays right",
    shortens,
    SMALL,
  ),
  "drpo": Claim(
    "On GSM8K 77 % of the tokens go for 1.1 % of the accuracy",
    partial(shortens, least=0.5),
    f"the rule asks for half; {SMALL}",
  ),
  "siri": Claim(
    "A limit that swings makes answers righter and 46.9 % shorter",
    partial(shortens, least=0.33, loss=0.0),
    f"the rule asks for a third; {SMALL}",
  ),
  "dial": Claim(FRONT, on_front, "the bonus is paid below the least budget whatever is asked for"),
  "dial_exact": Claim(
    FRONT, on_front, "a policy that does not tell budgets apart pays least between them"
  ),
  "distill": Claim(FRONT, on_front, "in so few steps it does not reach its teachers"),
  "l1_max": Claim("Answers stay within the budget that the prompt shows", within_budget, SMALL),
}


def verdicts(study: Study) -> list[Verdict]:
  """The claim of every method with runs."""
  found = []
  for group in study.groups:
    claim = CLAIMS.get(group.method)
    if claim is None or study.grpo is None:
      continue
    verdict, numbers = claim.rule(study, group)
    seeds = min(len(group.runs), len(study.grpo.runs))
    decided = verdict if seeds >= SEEDS else UNDECIDED
    note = "" if seeds >= SEEDS else f" ({seeds} seed{'s' * (seeds > 1)})"
    paper = METHODS[group.method].paper if group.method in METHODS else ""
    source = f"{group.label}, {paper}" if paper[:4].isdigit() else group.label
    found.append(Verdict(source, claim.text, decided, numbers + note, claim.why))
  return found

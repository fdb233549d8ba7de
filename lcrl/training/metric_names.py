"""The meaning of every name in metrics.jsonl and TensorBoard: one table, the source of METRICS.md.

python -m lcrl.training.metric_names    writes METRICS.md
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

PAGE = pathlib.Path(__file__).parents[2] / "METRICS.md"
INTRODUCTION = """# Metrics

The contents of `metrics.jsonl` and of a run's TensorBoard events: a line for each step and each
evaluation. A mean over nothing is left out; a number that is not finite is null. `{...}` stands for
a name or number of the run. Lengths are sampled tokens, the end token included.
"""

# Sections of the page: title -> name -> meaning.
TABLE: dict[str, dict[str, str]] = {
  "Update": {
    "loss": "the minimised loss, KL penalty and entropy bonus included; the mean over the updates "
    "of a step",
    "grad_norm": "global norm of the gradient before it is clipped",
    "learning_rate": "the learning rate of the step's updates",
    "skipped_updates": "updates of the step that were skipped because loss or gradient norm was "
    "not finite; three steps in a row with nothing but skipped updates end the run",
    "nll": "mean of -log-prob of the tokens of responses, in nats, under the policy before "
    "the update; in runs on pairs, of the chosen side",
    "entropy": "mean entropy of the next token in nats: over the whole vocabulary where the loss "
    "needs that, else estimated by the nll of the sampled tokens",
    "kl": "KL(policy || reference) a token, the k3 estimate; in runs with a reference policy",
    "approx_kl": "KL(old policy || policy) a token, the k1 estimate: how far the earlier updates "
    "of the step have moved the policy that the step began with; 0 with one update a step",
    "clip_fraction": "share of tokens at which the loss is clipped",
    "dual_clip_fraction": "share of tokens at which the second clip of negative advantages binds",
    "teacher_kl": "KL(policy || teacher) a token, the k1 estimate; with a section `teachers`",
    "teacher_clip_fraction": "share of tokens whose log ratio of teacher and policy is cut",
    "router/balance": "load-balance loss of the experts, before its coefficient: the number of "
    "experts of a token if all are chosen equally often; in a policy with experts",
    "sampler_kl": "KL(sampler || policy) a token, the k1 estimate: the effect of precision, and of "
    "sampling a step ahead",
    "sampler_logp_diff": "mean absolute difference of the log-probs of sampler and policy",
  },
  "Rollouts": {
    "accuracy": "share of right answers",
    "accuracy/difficulty_{level}": "the same, for prompts of this difficulty",
    "accuracy/level_{level}": "the same, at this level of a budget that has several",
    "score": "mean of the verifier's own number",
    "reward": "mean shaped reward",
    "length/mean": "mean length",
    "length/right": "mean length of right answers",
    "length/wrong": "mean length of wrong answers",
    "length/max": "the longest answer",
    "length/p{percent}": "percentile of the lengths",
    "length/right_p{percent}": "percentile of the lengths of right answers",
    "length/wrong_p{percent}": "percentile of the lengths of wrong answers",
    "length/difficulty_{level}": "mean length for prompts of this difficulty",
    "length/level_{level}": "mean length at this level of a budget that has several",
    "truncated": "share of answers that were cut at their cap, or by a revision",
    "end/{reason}": "share of answers that ended so: `end_token`, `cap`, `revision`, `stop_text`, "
    "`stop_text_2` and so on for the second stop text; where more than the first two can be",
    "thinking_cut": "share of answers whose thinking met its budget; with a control that cuts it",
    "forced_fraction": "share of the tokens of responses that a control forced; likewise",
    "end_probability": "mean probability of the token that ended an answer, under the sampler at "
    "its temperature; answers that ended otherwise have none",
    "term/{stage}": "mean of what this stage of the reward adds; these terms sum to `reward`",
    "kept_fraction": "share of rollouts that the filter keeps",
    "groups/all_right": "share of groups without a wrong answer",
    "groups/all_wrong": "share of groups without a right answer",
    "negative_adv_on_correct": "share of the kept right answers whose advantage is negative",
    "length_term/negative_adv": "the same, of those whose score is at least the group's mean: the "
    "verdict alone would not have given them a negative advantage",
    "length_term/no_reward": "share of right answers whose shaped reward is 0 or less: other terms "
    "took all that being right pays",
    "outcome/{outcome}": "number of answers with this outcome of verification",
    "alarm/collapse": "1 once accuracy and length have collapsed together",
    "alarm/truncated": "1 from a step on whose share of truncated answers exceeds 0.2, until it "
    "has fallen to 0.1",
    "rounds": "rounds of sampling that the batch took",
    "sampled/accuracy": "accuracy of all sampled answers, if only some of the groups are used",
    "sampled/length": "mean length of all sampled answers, likewise",
    "pool/restarts": "how often an answer was sent back and started again because the pool of "
    "pages ran dry, the mean over answers; with `sampling.slots`",
    "pool/peak": "the largest share of the pages of a device in use at once, the mean over rounds; "
    "likewise",
  },
  "Targets and states": {
    "budget/target": "mean target of the budget",
    "budget/cap": "mean cap, where sampling stops",
    "target/{stage}": "mean of the target lengths of this stage of the reward, if it has targets",
    "within_target/{stage}": "share of right answers that end within their target",
    "state/{slot}/turn": "index of the active stage of a schedule (`then`), from 0",
    "state/{slot}/{stage}/{number}": "a number of the stage's state before the step; those "
    "of the library's stages follow",
    "state/reward/laser_d/target_level_{level}": "LASER-D's target for groups of this accuracy "
    "level, 0 the hardest",
    "state/reward/laser_d/longest": "the longest answer of the last batch, the fallback target",
    "state/reward/{stage}/rows_known": "share of prompts that have a history (HAPO), a budget "
    "(Toggle) or a profile",
    "state/reward/{stage}/length": "mean of the histories (HAPO), budgets (Toggle) or limits",
    "state/budget/right_median/rows_known": "share of prompts with a known target",
    "state/budget/right_median/length": "mean of the known targets, in tokens",
    "state/reward/effort/rows_known": "share of prompts with a reference length",
    "state/reward/effort/reference": "mean reference length, in tokens",
    "state/reward/effort/applied": "steps in which the reward was given",
    "state/reward/effort/price_{level}": "price of a target's length at this level of effort",
    "state/reward/length_dual/price": "the price per `scale` tokens",
    "state/reward/lagrangian/multiplier_{component}": "the weight of a constraint",
    "state/reward/acoer/length": "average length of right answers",
    "state/reward/acoer/weight": "the weight of the length term",
    "state/reward/conciseness/anneal": "the remaining share of the annealed bonus",
    "state/reward/a_dlp/price": "the price of a token",
    "state/reward/adapt_think/rows_known": "share of prompts with a reference accuracy",
    "state/reward/adapt_think/reference": "mean reference accuracy",
    "state/reward/aalc/accuracy": "accuracy on the monitor set, as last observed, -1 before",
    "state/reward/aalc/target": "the accuracy at which brevity pays in full",
    "state/reward/leash/price": "the price of a target's length beyond the target",
    "state/reward/short_rl/best_accuracy": "best accuracy of a batch so far",
    "state/reward/toggle/limited": "1 in the phase with budgets, otherwise 0",
    "state/filter/easy_share/share": "wanted share of all-right groups among those that train",
    "state/filter/easy_share/needed": "share of a right answer's thinking up to its answer, mean",
    "state/filter/adaptive_shortest/quartile_{n}": "quartiles of past mean rewards",
    "state/filter/adaptive_shortest/means": "number of these past means",
    "state/advantage/canon/step": "steps of the schedule of the mixing weight",
    "state/loss/bco/shift": "mean of all rewards so far",
    "state/loss/{stage}/mean": "running mean in the state of the loss",
    "state/loss/{stage}/std": "running deviation in the state of the loss",
  },
  "Pairs and reward models": {
    "pairs": "pairs, or single answers, in the batch",
    "tokens": "tokens of their answers",
    "length": "mean length of single answers",
    "pairs/accuracy": "share of pairs whose chosen side has the higher reward, a tie half",
    "pairs/margin": "mean of chosen minus rejected reward",
    "pairs/margin_per_token": "the same, each reward divided by its length",
    "pairs/reward_length_correlation": "Pearson, reward against length",
    "pairs/margin_length_correlation": "Pearson, margin against difference of lengths",
    "pairs/longer_preferred": "share of pairs of unlike length whose longer side has the higher "
    "reward",
    "pairs/longer_chosen": "share of pairs of unlike length whose longer side is the chosen one",
    "pairs/chosen_reward": "mean reward of chosen sides",
    "pairs/rejected_reward": "mean reward of rejected sides",
    "pairs/chosen_length": "mean length of chosen sides",
    "pairs/rejected_length": "mean length of rejected sides",
    "pairs/reward": "mean reward",
    "pairs/length": "mean length",
    "pairs/score_correlation": "Pearson, reward against the data's scores",
    "pairs/score_length_correlation": "Pearson, the data's scores against length",
    "pairs/score_error": "root of the mean squared difference of rewards and scores",
  },
  "Iterative runs": {
    "round": "the round of sampling whose pairs the step trains on",
    "round/pairs": "pairs of that round",
    "refined/accuracy": "share of right ones of refined answers",
    "refined/length/mean": "their mean length",
    "refined/reward": "their mean reward",
    "teacher": "mean number of a teacher's answers to a prompt",
  },
  "Evaluations": {
    "eval/accuracy": "share of right answers; of runs without a task see summary.json",
    "eval/tokens": "mean length of answers",
    "eval/truncated": "share of answers that were cut",
    "eval/thinking_cut": "share of answers whose thinking met its budget; with a control that cuts",
    "eval/{set}/{name}": "`eval/{name}`, on a further set of `eval_tasks`",
    "eval/asked/{budget}/{name}": "`eval/{name}` of answers to prompts that ask for this budget",
    "eval/sampled/tokens": "mean length of the policy's own answers to held-out prompts",
    "eval/sampled/truncated": "share of them that were cut",
    "eval/pairs/nll": "mean of -log-prob of a token of held-out chosen answers, in nats",
    "eval/pairs/pairs": "held-out pairs, or answers",
    "eval/pairs/likelihood_length_correlation": "Pearson, mean log-prob of an answer against its "
    "length",
    "eval/pairs/{name}": "`pairs/{name}`, for held-out pairs",
  },
  "Time": {
    "time/step": "seconds of the step",
    "time/compile": "those of them in which XLA compiled: packed rows of a size that was not there "
    "before take a new program, which `train.micro_tokens` spares",
    "time/sample": "seconds that the host waited for samples; in iterative runs, of a round's "
    "sampling",
    "time/verify": "further seconds that the host waited for verdicts",
    "time/update": "seconds of the update",
    "sampled_tokens_per_s": "sampled tokens over the time of sampling",
    "tokens_per_s": "trained tokens over the time of the step",
  },
}

OLD_NAMES = {
  "right_pushed_down": "negative_adv_on_correct",
  "sampler_gap": "sampler_logp_diff",
  "surprise": "nll",
  "trains": "kept_fraction",
}


def renamed(row: Any) -> Any:
  """A row of numbers, and the rows inside it, with current names for those of older runs.

  >>> renamed({"step": 1, "trains": 0.5, "eval/pairs/surprise": 2.0, "pairs": {"surprise": 2.0}})
  {'step': 1, 'kept_fraction': 0.5, 'eval/pairs/nll': 2.0, 'pairs': {'nll': 2.0}}
  """
  if not isinstance(row, dict):
    return row
  return {_renamed(name): renamed(value) for name, value in row.items()}


def _renamed(name: str) -> str:
  *groups, last = name.split("/")
  return "/".join((*groups, OLD_NAMES.get(last, last)))


def explanation(name: str) -> str | None:
  """The meaning of a metric; None if the table does not list it.

  >>> explanation("length/right_p90")
  'percentile of the lengths of right answers'
  """
  known = {pattern: text for rows in TABLE.values() for pattern, text in rows.items()}
  if name in known:
    return known[name]
  fits = lambda pattern: re.fullmatch(re.sub(r"\\{\w+\\}", r"[^/]+", re.escape(pattern)), name)
  return next((text for pattern, text in reversed(known.items()) if fits(pattern)), None)


def page() -> str:
  """METRICS.md."""
  parts = [INTRODUCTION]
  for title, rows in TABLE.items():
    lines = [f"| `{name}` | {text} |" for name, text in rows.items()]
    parts.append("\n".join([f"## {title}", "", "| name | meaning |", "|---|---|", *lines, ""]))
  return "\n".join(parts)


if __name__ == "__main__":
  PAGE.write_text(page(), encoding="utf-8")

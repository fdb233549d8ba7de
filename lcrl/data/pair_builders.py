"""The functions that `pairing.fn` of a config may name: they pair samples of a prompt.

Every builder is a pure function: samples of one prompt -> (chosen, rejected) indices, none where
the samples show no contrast. Ties go to the first sample. Host side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lcrl.data.selection import Pairs, long2short_pairs, tops_selection
from lcrl.losses.preference import cdr_reward, mean_weights, sum_weights
from lcrl.tasks.signals import unigram_f1
from lcrl.tasks.task import Messages

__all__ = [
  "best_vs_random",
  "best_vs_worst",
  "density_ratio",
  "long2short",
  "reference_scored",
  "refined_vs_first",
  "right_vs_wrong",
  "short_vs_long_context",
  "shortest_vs_longest",
  "tops",
  "tournament",
]


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
  """N answers to one prompt, as a rollout or a scorer gives them."""

  lengths: Any  # [N] int, tokens, end token included
  correct: Any  # [N] bool
  scores: Any  # [N] float, of a reward model, a judge or a verifier; nan: not scored, not paired
  texts: Sequence[str] = ()  # N, or none where no builder reads them
  prompt_id: int = 0
  signals: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # arrays [N, ...], texts

  def __post_init__(self):
    counts = [len(x) for x in (self.lengths, self.correct, self.scores, self.texts or self.lengths)]
    if len(set(counts)) > 1 or not counts[0]:
      raise ValueError(f"lengths, correct, scores and texts must be equally many, got {counts}.")

  def signal(self, name: str) -> Any:
    if name not in self.signals:
      raise ValueError(f"the samples have no signal {name!r}; there are {[*self.signals]}.")
    return self.signals[name]


def long2short(samples: Samples, *, ratio: float = 1.5) -> Pairs:
  """The shortest right answer against longer wrong ones and right ones `ratio` times as long.

  Source: Kimi k1.5, arXiv:2501.12599.

  >>> samples = Samples(lengths=[10, 30, 50], correct=[True, True, False], scores=[1, 1, 0])
  >>> long2short(samples)
  [(0, 1), (0, 2)]
  """
  return long2short_pairs(samples.correct, samples.lengths, ratio=ratio)


def shortest_vs_longest(samples: Samples, *, ratio: float = 1.0) -> Pairs:
  """The shortest right answer against the longest right one, if more than `ratio` times as long.

  >>> samples = Samples(lengths=[10, 30, 50], correct=[True, True, False], scores=[1, 1, 0])
  >>> shortest_vs_longest(samples, ratio=2.0)
  [(0, 1)]
  """
  right = np.flatnonzero(samples.correct)
  if not right.size:
    return []
  lengths = np.asarray(samples.lengths)[right]
  short, long = lengths.argmin(), lengths.argmax()
  return [(int(right[short]), int(right[long]))] if lengths[long] > ratio * lengths[short] else []


def tops(samples: Samples) -> Pairs:
  """The shortest right answer against the longest wrong one and a wrong one shorter than it.

  Source: TOPS, arXiv:2502.18080.

  >>> samples = Samples(lengths=[20, 10, 50], correct=[True, False, False], scores=[1, 0, 0])
  >>> tops(samples)
  [(0, 2), (0, 1)]
  """
  return tops_selection(samples.correct, samples.lengths).pairs


def right_vs_wrong(samples: Samples) -> Pairs:
  """Each wrong answer of the policy against a right one, a teacher's if there is one.

  The signal `teacher` [N] bool marks answers that the policy did not sample; without it all are its
  own. Right answers are used in rotation. Source: semi-on-policy DPO of Light-R1, arXiv:2503.10460;
  its matching of several answers is not published (ours).
  """
  right = np.asarray(samples.correct, bool)
  teacher = np.asarray(samples.signals.get("teacher", np.zeros(right.shape)), bool)
  chosen = np.flatnonzero(right & teacher) if teacher.any() else np.flatnonzero(right)
  wrong = np.flatnonzero(~right & ~teacher)
  if not chosen.size:
    return []
  return [(int(chosen[i % chosen.size]), int(w)) for i, w in enumerate(wrong)]


def best_vs_worst(
  samples: Samples, *, min_gap: float = 0.0, length_margin: int | None = None
) -> Pairs:
  """The best score against the worst, among answers whose length does not explain the gap.

  Args:
    min_gap: the scores differ by more than this.
    length_margin: most tokens by which the rejected answer may be shorter than the chosen one, so
      that the policy does not learn length; the worst such answer is taken. None: no limit, as in
      SPPO (arXiv:2405.00675).
  """
  lengths = np.asarray(samples.lengths)
  scores, best = _best(samples)
  allowed = scores < scores[best] - min_gap
  if length_margin is not None:
    allowed &= lengths[best] - lengths <= length_margin
  if not allowed.any():
    return []
  return [(best, int(np.where(allowed, scores, np.inf).argmin()))]


def tournament(samples: Samples) -> Pairs:
  """The winner of a knock-out of all answers against the last of one that losers go on in.

  Neighbours meet, a tie goes to the first, and who has no partner passes. Reads the signal
  `preferences` [N, N], the chance that i is preferred to j; without it, scores decide. It needs
  about 3 N / 2 of the N (N - 1) / 2 comparisons, and no ranking of all answers: preferences may
  form a cycle. Source: INPO, arXiv:2407.00617, from secondary notes; the order of play is ours.
  """
  scores = np.asarray(samples.scores, float)
  entered = np.flatnonzero(~np.isnan(scores)).tolist()
  if len(entered) < 2:
    return []
  chances = samples.signals.get("preferences")
  chances = preferences_of(scores) if chances is None else np.asarray(chances)
  beats = lambda i, j: bool(chances[i, j] >= chances[j, i])
  best, worst = _knock_out(entered, beats), _knock_out(entered, lambda i, j: not beats(i, j))
  return [] if chances[best, worst] <= 0.5 else [(best, worst)]


def _knock_out(entered: list[int], beats: Callable[[int, int], bool]) -> int:
  while len(entered) > 1:
    met = zip(entered[::2], entered[1::2], strict=False)
    winners = [i if beats(i, j) else j for i, j in met]
    entered = winners + (entered[-1:] if len(entered) % 2 else [])
  return entered[0]


def _best(samples: Samples) -> tuple[np.ndarray, int]:
  scores = np.asarray(samples.scores, float)
  return scores, int(np.where(np.isnan(scores), -np.inf, scores).argmax())


def best_vs_random(samples: Samples, *, seed: int = 0) -> Pairs:
  """The best score against a lower one, drawn at random by the prompt's id and the seed.

  Source: LongWriter, arXiv:2408.07055, whose scores say how close a response is to the
  requested length (`lcrl.evaluation.verbosity.length_score`); from memory, no code is released.

  >>> samples = Samples(lengths=[9, 8, 7], correct=[True, True, False], scores=[0.9, 0.5, 0.5])
  >>> best_vs_random(samples)[0][0]
  0
  """
  scores, best = _best(samples)
  others = np.flatnonzero(scores < scores[best])
  if not others.size:
    return []
  return [(best, int(np.random.default_rng((seed, samples.prompt_id)).choice(others)))]


def density_ratio(
  samples: Samples,
  *,
  per_token: bool = False,
  min_gap: float = 0.0,
  length_margin: int | None = None,
) -> Pairs:
  """Best against worst by the log-ratio of an answer's probability in a strong and a weak model.

  Reads the signals strong_log_probs, weak_log_probs [N, T] and mask [N, T]. `per_token` takes the
  mean instead of the sum, which grows with length. Source: CDR, see `cdr_reward`.

  >>> strong, weak = np.array([[-1.0], [-3.0]]), np.array([[-2.0], [-2.0]])
  >>> signals = dict(strong_log_probs=strong, weak_log_probs=weak, mask=np.ones((2, 1), bool))
  >>> samples = Samples(lengths=[1, 1], correct=[True, True], scores=[0.0, 0.0], signals=signals)
  >>> density_ratio(samples)
  [(0, 1)]
  """
  ratios = cdr_reward(
    samples.signal("strong_log_probs"),
    samples.signal("weak_log_probs"),
    samples.signal("mask"),
    weigh=mean_weights if per_token else sum_weights,
  )
  scored = dataclasses.replace(samples, scores=np.asarray(ratios))
  return best_vs_worst(scored, min_gap=min_gap, length_margin=length_margin)


def reference_scored(
  samples: Samples,
  *,
  score: Callable[[str, str], float] = unigram_f1,
  min_gap: float = 0.0,
  length_margin: int | None = None,
) -> Pairs:
  """Best against worst by a score against a reference text, such as a user's own.

  Reads the signal `reference`, one text. Source: PUGC, whose score is a reward model's;
  `unigram_f1` needs no model.

  >>> texts, signals = ["the cat sat", "a dog ran"], {"reference": "the cat sat down"}
  >>> samples = Samples(lengths=[3, 3], correct=[1, 1], scores=[0, 0], texts=texts, signals=signals)
  >>> reference_scored(samples)
  [(0, 1)]
  """
  reference = samples.signal("reference")
  scores = np.array([score(text, reference) for text in samples.texts])
  scored = dataclasses.replace(samples, scores=scores)
  return best_vs_worst(scored, min_gap=min_gap, length_margin=length_margin)


def short_vs_long_context(samples: Samples) -> Pairs:
  """Each answer from the short context against one from the whole document, in order.

  Reads the signal `long_context` [N] bool. The pair trains on the long prompt, and the reference
  model reads the short one (`Pair.reference`). Source: LongPO, arXiv:2502.13922.

  >>> signals = {"long_context": np.array([False, True])}
  >>> short_vs_long_context(Samples(lengths=[3, 4], correct=[1, 1], scores=[0, 0], signals=signals))
  [(0, 1)]
  """
  long = np.asarray(samples.signal("long_context"), bool)
  both = np.flatnonzero(~long).tolist(), np.flatnonzero(long).tolist()
  return list(zip(*both, strict=False))


def refined_vs_first(samples: Samples, *, min_gap: float = 0.0) -> Pairs:
  """Each refined answer against the one that it refines, if it scores better.

  Reads the signal `refines` [N] int, the index of that one, -1 for a first answer. Train on it
  twice: as an answer to the prompt, and as one to `refinement_prompt`. Source: EVOLVE,
  arXiv:2502.05605, from memory.
  """
  scores = np.asarray(samples.scores, float)
  refines = enumerate(np.asarray(samples.signal("refines")).tolist())
  return [(i, j) for i, j in refines if j >= 0 and scores[i] - scores[j] > min_gap]


def refinement_prompt(messages: Messages, first: str, instruction: str) -> Messages:
  """The prompt, the first answer, and the request to do better.

  >>> [m["role"] for m in refinement_prompt(({"role": "user", "content": "?"},), "5", "Again.")]
  ['user', 'assistant', 'user']
  """
  answered = {"role": "assistant", "content": first}
  return (*messages, answered, {"role": "user", "content": instruction})


def win_rates(scores: Sequence[float] | np.ndarray) -> np.ndarray:
  """Chance that an answer beats one drawn from all, itself included: mean_j sigmoid(s_i - s_j).

  Source: SPPO, arXiv:2405.00675, and its code.

  >>> print(win_rates([0.0, 0.0, 40.0]).round(3))
  [0.333 0.333 0.833]
  """
  return preferences_of(scores).mean(1)


def preferences_of(scores: Sequence[float] | np.ndarray) -> np.ndarray:
  """Chance that answer i beats answer j if scores are rewards: sigmoid(s_i - s_j). [N] -> [N, N].

  >>> print(preferences_of([0.0, 40.0]).round(3))
  [[0.5 0. ]
   [1.  0.5]]
  """
  scores = np.asarray(scores, float)
  return 0.5 * (1 + np.tanh((scores[:, None] - scores[None]) / 2))

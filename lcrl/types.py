"""The records that pass between packages: frozen, registered as pytrees, a shape on every field.

B prompts, G rollouts per prompt, T token positions of a row. A row is prompt, then response, then
padding on the right; T covers both. Every array leads with B, so a record can be cut into pieces
along its first axis. Axes further to the right may be missing only where the comment says so.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar, dataclass_transform

import jax

__all__ = [
  "Batch",
  "Budget",
  "EndReason",
  "Outcome",
  "PairBatch",
  "Pairs",
  "Recipe",
  "Rollouts",
  "Stage",
  "TokenScores",
  "TrainState",
  "end_name",
]


def __dir__() -> list[str]:
  return __all__


PyTree = Any


class Outcome(enum.IntEnum):
  """What became of one verification. Only OK and WRONG are verdicts on the answer."""

  OK = 0
  WRONG = 1
  BAD_FORMAT = 2  # no answer could be read from the response
  TIMEOUT = 3  # the verifier did not finish before its deadline
  CRASH = 4  # the verifier died or raised


class EndReason(enum.IntEnum):
  """Why a response ended. `finish_reason` of vLLM is "length" for CAP, and "stop" for an end token
  or a stop text, which it names as `stop_reason`."""

  END_TOKEN = 0
  CAP = 1  # `Budget.cap`; the response is truncated
  REVISION = 2  # a revision cut it (`revise` of a config); the response is truncated
  STOP_TEXT = 3  # the first stop text; STOP_TEXT + k: the one k places behind it


def end_name(reason: int) -> str:
  """A reason in words: end_token, cap, revision, stop_text, stop_text_2, ...

  >>> end_name(EndReason.CAP), end_name(EndReason.STOP_TEXT), end_name(EndReason.STOP_TEXT + 1)
  ('cap', 'stop_text', 'stop_text_2')
  """
  place = int(reason) - EndReason.STOP_TEXT
  return EndReason(reason).name.lower() if place <= 0 else f"stop_text_{place + 1}"


@dataclass_transform(frozen_default=True)
def _record(cls):
  """A frozen dataclass that is a pytree; every field is a child."""
  cls = dataclasses.dataclass(frozen=True)(cls)
  fields = [f.name for f in dataclasses.fields(cls)]
  return jax.tree_util.register_dataclass(cls, data_fields=fields, meta_fields=[])


@_record
class Budget:
  """How long an answer may be. What rewards compare with need not be where the sampler stops."""

  target: jax.Array  # [B, G] int32, the length that rewards compare with
  cap: jax.Array  # [B, G] int32, where the sampler stops
  level: jax.Array  # [B, G] int32, which prompt template


@_record
class Rollouts:
  """Sampled and verified responses. Length counts sampled tokens, the end token included.

  What a control of the sampler forces, such as the end of a thinking that met its budget, is
  context: not in the mask, so that it neither trains nor is compared with any policy. It counts in
  lengths with `sampling.count_forced` alone.
  """

  tokens: jax.Array  # [B, G, T] int32, prompt then response, right-padded
  mask: jax.Array  # [B, G, T] bool, tokens that count: sampled, or forced by a prefix that trains
  sampler_log_probs: jax.Array  # [B, G, T] float32, of drawn tokens; nothing else reads the rest
  lengths: jax.Array  # [B, G] int32, counted.sum(-1)
  truncated: jax.Array  # [B, G] bool, the cap or a revision ended it: see `end_reasons`
  scores: jax.Array  # [B, G] float32, the verifier's own number
  correct: jax.Array  # [B, G] bool, there is a score >= the task's threshold
  outcome: jax.Array  # [B, G] int8, an Outcome
  valid: jax.Array  # [B, G] bool, False for rows that only pad a ragged group or a short batch
  prompt_ids: jax.Array  # [B] int32, row of the data set
  difficulty: jax.Array  # [B] int32, as the task counts it
  budget: Budget
  # [B], [B, G] or [B, G, T], what only some methods need; experts are [B, G, T, layers, k]
  signals: dict[str, jax.Array]
  undrawn: jax.Array | None = None  # [B, G, T] bool, in the mask but not drawn; None: all were
  forced: jax.Array | None = None  # [B, G, T] bool, a control forced them; None: nothing forces
  end: jax.Array | None = None  # [B, G] int8, an EndReason; None: an end token or the cap
  thinking_cut: jax.Array | None = None  # [B, G] bool, met its thinking budget; None: has none

  @property
  def drawn(self) -> jax.Array:
    """[B, G, T] bool, tokens that the sampler chose as they stand: not those that a prefix forced
    or that moved when the response was cropped. Only they can be compared with the sampler. A
    log-prob of 0 is a drawn token of probability 1."""
    return self.mask if self.undrawn is None else self.mask & ~self.undrawn

  @property
  def written(self) -> jax.Array:
    """[B, G, T] bool, the mask and what a control forced."""
    return self.mask if self.forced is None else self.mask | self.forced

  @property
  def counted(self) -> jax.Array:
    """[B, G, T] bool, tokens that the length counts: the mask, or `written`."""
    if self.forced is None:
      return self.mask
    return self.mask | (self.forced & (self.lengths > self.mask.sum(-1))[..., None])

  @property
  def places(self) -> jax.Array:
    """[B, G, T] int32, where each counted token stands in its response, from 0: as signals say."""
    return self.counted.cumsum(-1) - 1

  @property
  def end_reasons(self) -> jax.Array:
    """[B, G] int8, `end` where there is one, else what `truncated` says."""
    if self.end is not None:
      return self.end
    return (self.truncated * EndReason.CAP).astype("int8")


@_record
class Batch:
  """What the loss trains on: rollouts with everything that `shape` derived from them."""

  rollouts: Rollouts
  rewards: jax.Array  # [B, G] float32, shaped
  keep: jax.Array  # [B, G] bool, trains or not; never True where not valid
  advantages: jax.Array  # [B, G] or [B, G, T] float32
  weights: jax.Array  # [B, G, T] float32, share of each token in the loss
  old_log_probs: jax.Array | None = None  # [B, G, T]; None: one update, the policy's own, stopped
  ref_log_probs: jax.Array | None = None  # [B, G, T]; only if a stage needs "ref"
  targets: dict[str, jax.Array] | None = None  # by stage, [B, G] float32; `Stage.targets`

  @property
  def scored(self) -> Rollouts:
    """What the policy scores."""
    return self.rollouts


@_record
class TokenScores:
  """What the policy says about the rows, differentiable. Only what a stage needs is computed."""

  log_probs: jax.Array  # [B, G, T], log_probs[..., 0] is 0
  entropy: jax.Array | None = None  # [B, G, T] nats, over the whole vocabulary
  log_sum_sq: jax.Array | None = None  # [B, G, T], log of the sum of squared probabilities
  logits_at: jax.Array | None = None  # [B, G, T], the raw logit of the token
  # [B, G, T], what the token before adds to the load-balance loss of experts
  balance: jax.Array | None = None


@_record
class Pairs:
  """Answers to imitate or to contrast. G = 2: side 0 is chosen, side 1 rejected. G = 1: SFT."""

  tokens: jax.Array  # [B, G, T] int32, prompt then response, right-padded
  mask: jax.Array  # [B, G, T] bool, the response and its end token
  lengths: jax.Array  # [B, G] int32, mask.sum(-1)
  valid: jax.Array  # [B] bool, False where a row only fills the last batch of an epoch
  pair_ids: jax.Array  # [B] int32, row of the data set; -1 where not valid
  scores: jax.Array  # [B, G] float32, what the data say a side is worth; nan where they do not
  signals: dict[str, jax.Array]  # [B, ...], what only some methods need


@_record
class PairBatch:
  """What a preference loss trains on: pairs with everything that the trainer derived from them."""

  pairs: Pairs
  weights: jax.Array  # [B] float32, share of each pair in the mean over pairs
  token_weights: jax.Array  # [B, T] float32, share of side 0's tokens in a likelihood term
  keys: jax.Array  # [B] random keys, one a pair
  ref_log_probs: jax.Array | None = None  # [B, G, T]; only if the loss needs "ref"
  previous_log_probs: jax.Array | None = None  # [B, G, T]; only if the loss needs "previous"

  @property
  def scored(self) -> Pairs:
    """What the policy scores."""
    return self.pairs


@_record
class TrainState:
  """Everything that changes between steps: donated, sharded, saved and restored whole."""

  step: jax.Array  # [] int32, training steps taken
  params: PyTree
  opt_state: PyTree
  recipe: PyTree  # a Recipe of stage states
  position: jax.Array  # [] int32, prompts taken from the data
  counters: dict[str, jax.Array]  # [] each, totals since the start
  pending: PyTree = None  # rollouts sampled before the step that trains on them
  passed: jax.Array | None = None  # [window, 2] int32, groups sampled and trained on, a step each


class Stage(NamedTuple):
  """One choice for a slot: a state, and a pure function of it and of the slot's inputs.

  Only `init` and `apply` are required. `rewards`, `targets`, `terms`, `numbers` and `fractions`
  serve logs and reports alone.
  """

  # () -> the state before the first step. A stage without a state returns ().
  init: Callable[[], PyTree]
  # (state, *inputs) -> (output, new state). The inputs of each slot are those of `Recipe`.
  apply: Callable
  # Inputs that not every run has: signals, fields of TokenScores, "ref" for reference log-probs,
  # "group" for more than one rollout a prompt, "truncated" for a sampler that tells what it cut. A
  # run without them is refused at its start.
  needs: tuple[str, ...] = ()
  # (state, rollouts of the monitor set, without signals) -> state, every `monitor.every` steps.
  observe: Callable | None = None
  # A loss that is not the sum of its values on pieces of the batch.
  coupled: bool = False
  # A loss whose gradient at a rollout depends on the scores of that rollout alone: a batch may then
  # be cut inside its groups without another pass forward.
  rowwise: bool = False
  # How many rows of the data set the state has room for; 0 if it keeps nothing by row.
  rows: int = 0
  # Of a preference loss: (scores, batch) -> the implied rewards of both sides, [B, 2].
  rewards: Callable | None = None
  # Of a reward: (state before apply, rollouts) -> {stage: [B, G]}, the lengths in tokens that it
  # compares with, outermost stage first; inf where it compares with none.
  targets: Callable | None = None
  # state -> {"stage/number": []}, what the stage has learned.
  numbers: Callable | None = None
  # Of a loss: (state, scores, batch) -> {name: []}, such as the share of clipped tokens.
  fractions: Callable | None = None
  # Of a reward: (state before apply, rollouts) -> {stage: [B, G]}, what each stage adds to the
  # reward, innermost first; they sum to it.
  terms: Callable | None = None
  # Of a budget: (state, rollouts) -> state, once a step on the batch that trains, before `apply`.
  learn: Callable | None = None
  # Of a budget: how many levels it chooses from; 0 if it is not known. Of a reward: how many it has
  # numbers for; 0: any.
  levels: int = 0


S = TypeVar("S")


class Recipe(NamedTuple, Generic[S]):
  """One stage, or one state, for each slot. The comments give what `apply` takes and returns."""

  budget: S  # state, prompt_ids [B], step [] -> Budget(target, cap, level), [B, G] each
  reward: S  # state, rollouts -> rewards [B, G]
  filter: S  # state, rewards, rollouts -> keep [B, G] bool
  advantage: S  # state, rewards, keep, rollouts -> advantages [B, G] or [B, G, T]
  loss: S  # state, scores, batch (with weights) -> loss []

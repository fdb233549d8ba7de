"""Methods that strain the contract, and all that have a state: each stops, resumes, is bit-equal.

Phases and checkpoints are the real ones. Only the verifier scores in this process, and generously,
since a fresh policy is rarely right.
"""

import copy
import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import recipes, tasks
from lcrl.data import tokenizers
from lcrl.registry import build
from lcrl.rollouts.worker import RolloutWorker
from lcrl.sampling.engine import make_engine
from lcrl.sampling.programs import advance_stream, compiled
from lcrl.tasks.verify import Verdict
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.monitor import make_monitor
from lcrl.training.rl.pipeline import Provider
from lcrl.training.rl.run import RlStep, make_pipeline
from lcrl.training.rl.settings import read
from lcrl.types import Outcome
from tests.laws_test import LAGRANGIAN, SLOTS, TABLE
from tests.loop_test import CONFIG
from tests.rollouts import AtOnce

STOP, LAST, CAP = 2, 4, 16
WORDS = tokenizers.sums()


def has_digit(response, reference):
  """Right if the answer's digit stands anywhere: what a prefix has, the whole has."""
  return float(str(reference) in response)


class Here(AtOnce):
  """Verifies in this process, and remembers what it was asked."""

  def __init__(self, task):
    self.task, self.asked = task, []

  def verify(self, items):
    self.asked += items
    scores = [self.task.score(text, prompt.reference) for text, prompt in items]
    return [Verdict(s, Outcome.OK if s else Outcome.WRONG) for s in scores]


def stand_in(params, rollouts):
  """In place of a reward model."""
  return {"conciseness": 1.0 / rollouts.lengths}


class Run:
  """A run without its workdir."""

  def __init__(self, engine, **changes):
    config = copy.deepcopy(CONFIG) | {"seed": 1}
    for name, value in changes.items():
      config[name] = config[name] | value if name in ("train", "task") else value
    self.model = build_learner(read(config))
    task = dataclasses.replace(build(tasks, config["task"], field="task"), score=has_digit)
    self.verifier = Here(task)
    worker = RolloutWorker(task, WORDS, engine, self.verifier, self.model.mesh, 16)
    providers = [Provider(("conciseness",), stand_in)]
    self.step = RlStep(self.model, task, make_pipeline(self.model, worker, providers))
    self.monitor, self.worker = make_monitor(self.model, task, worker), worker

  def steps(self, state, until):
    """The state after step `until`, and the batches on the way."""
    batches = []
    while int(state.step) < until:
      state, _, batch = self.step(self.monitor(state))
      batches.append(jax.tree.map(np.asarray, batch))
    return state, batches

  def batch(self, state):
    """The batch that a step would train on."""
    return self.step.shape(state, self.step.queue.take(state)).batch

  def forgetful(self, state):
    """A copy of the state that has lost what the recipe and the collector remember."""
    fresh = jax.tree.map(jnp.copy, state)
    passed = None if state.passed is None else jnp.zeros_like(state.passed)
    return dataclasses.replace(fresh, recipe=recipes.init(self.model.recipe), passed=passed)


THINK = dict(signals=dict(fn="think_tags", close="#"))
TWO_STEPS = dict(size=8)  # a pass over the data takes two steps, so that prompts come again
RESTARTS = dict(fn="cosine_restarts", low=0.0, high=0.6, warmup=1, period=3)
LASER_D = dict(fn="laser_d", lower=2, upper=14, interval=2, initial=2)
# name -> what changes in the config. What has a state needs it at step STOP.
METHODS = {
  "hapo": dict(task=TWO_STEPS, reward=dict(fn="hapo", rows=8)),
  "laser_d": dict(seed=2, reward=LASER_D, monitor=dict(every=3, prompts=4)),
  "l1_exact": dict(
    budget=dict(fn="uniform", low=4, high=9, cap=CAP),
    task=dict(render=dict(fn="suffix", templates="{target}?")),
    reward=dict(fn="exact_length", alpha=0.02),
  ),
  "hbpo": dict(
    budget=dict(fn="subgroups", targets=(4, 12), cap=CAP),
    task=dict(render=dict(fn="prefix", templates="{target}=", counts=True)),
    reward=dict(fn="hbpo", max_length=CAP, alpha=1 / CAP),
    advantage=dict(fn="budget_subgroup", max_length=CAP),
  ),
  "dot": dict(
    reward=dict(fn="correctness"),
    revise=dict(fn="cut_outliers", alpha=0.2, success=0.2, margin=1),
    filter=dict(fn="nonconstant_reward"),
    train=dict(window=20),
  ),
  "drpo": dict(loss=dict(fn="drpo", max_length=CAP), train=dict(micro_batches=2)),
  "pear": dict(task=THINK, reward=dict(fn="pear"), train=dict(updates=2)),
  "dapo": dict(
    reward=dict(fn="soft_overlong", max_length=CAP, buffer=4),
    filter=dict(fn="mixed_correctness"),
    train=dict(max_rounds=3),
  ),
  "mrt": dict(
    reward=dict(fn="mrt"),
    revise=dict(
      fn="force_answers", force="#", cap=4, episodes=2, samples=2, close="#", separator="="
    ),
  ),
  "hapo_mean": dict(task=TWO_STEPS, reward=dict(fn="hapo_mean", rows=8)),
  "acoer": dict(reward=dict(fn="acoer", interval=1)),
  "length_dual": dict(reward=dict(fn="length_dual", target=4, step_size=0.5)),
  "lagrangian": dict(reward=LAGRANGIAN),
  "conciseness": dict(reward=dict(fn="conciseness", alpha=1.0, anneal_steps=4)),
  "adaptive_shortest": dict(
    filter=dict(fn="adaptive_shortest", counts=(4, 3, 2, 1), window=8, warmup=2)
  ),
  "canon_length": dict(advantage=dict(fn="canon_length", mu=RESTARTS)),
  "canon_entropy": dict(advantage=dict(fn="canon_entropy", mu=RESTARTS)),
}


def shows_l1(run, batches):
  r = batches[0].rollouts
  assert (r.budget.target < r.budget.cap).all()
  for row, mask, target in zip(r.tokens[:, 0], r.mask[:, 0], r.budget.target[:, 0], strict=True):
    assert WORDS.decode(row[: mask.argmax()]).endswith(f"?{target}?")


def shows_hbpo(run, batches):
  r = batches[0].rollouts
  assert (r.lengths == r.mask.sum(-1)).all()
  assert r.lengths.max() == r.budget.cap.max()
  for b, g in np.ndindex(r.lengths.shape):
    said = r.tokens[b, g][r.mask[b, g]].tolist()
    forced = f"{(4, 4, 12, 12)[g]}="
    assert WORDS.decode(said).startswith(forced)
    drawn = np.asarray(r.drawn)[b, g][r.mask[b, g]]
    assert drawn.tolist() == [i >= len(forced) for i in range(len(said))]


def shows_dot(run, batches):
  cut = [b.rollouts.truncated & (b.rollouts.lengths < CAP) for b in batches]
  lost = [c & ~b.rollouts.correct for c, b in zip(cut, batches, strict=True)]
  assert any(x.any() for x in lost), "no cut response lost its answer"


def shows_pear(run, batches):
  for batch in batches:
    r = batch.rollouts
    entropy = r.signals["entropy"]
    assert (entropy[r.mask] > 0).all()
    assert not entropy[~r.mask].any()
    assert batch.old_log_probs.shape == r.mask.shape  # of the pass that gave the entropy
  assert any((b.rollouts.signals["think_end"] >= 0).any() for b in batches)


def shows_dapo(run, batches):
  kept = [b.keep.any(-1) for b in batches]
  assert all(k.all() for k in kept), "a round was not refilled"


SHOWS = {
  "l1_exact": shows_l1,
  "hbpo": shows_hbpo,
  "dot": shows_dot,
  "pear": shows_pear,
  "dapo": shows_dapo,
}


@pytest.fixture(scope="module")
def engine(one_device):
  """One for all methods, so that it is compiled once; and problems are made once."""
  patch = pytest.MonkeyPatch()
  arithmetic = importlib.import_module("lcrl.tasks.arithmetic")
  patch.setattr(arithmetic, "_Prompts", functools.cache(arithmetic._Prompts))
  model = build_learner(read(CONFIG))
  yield make_engine(
    model.policy, max_tokens=CAP, end_ids=WORDS.end_ids, pad_id=WORDS.pad_id, mesh=model.mesh
  )
  patch.undo()


@pytest.mark.parametrize("name", METHODS)
def test_resume_equals_never_stopping(name, engine, tmp_path):
  run = Run(engine, **METHODS[name])
  stopped, first = run.steps(run.model.initial(), STOP)
  checkpoints = Checkpoints(tmp_path)
  checkpoints.save(STOP, stopped)
  checkpoints.wait()
  lost = run.forgetful(stopped)
  whole, last = run.steps(stopped, LAST)
  again, _ = run.steps(Checkpoints(tmp_path).restore(run.model.abstract)[1], LAST)
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  if jax.tree.leaves((lost.recipe, lost.passed)):
    lost, _ = run.steps(lost, LAST)
    assert not same(lost.params, whole.params), "what the run remembers makes no difference"
  SHOWS.get(name, lambda *_: None)(run, first + last)


def same(a, b):
  return all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def test_every_stage_with_a_state_is_here():
  sections = (x for method in METHODS.values() for x in method.values() if isinstance(x, dict))
  named = {spec["fn"] for spec in sections if "fn" in spec}
  for slot, spec in TABLE:
    bare = {key: value for key, value in spec.items() if key != "base" or slot == "loss"}
    if jax.tree.leaves(build(SLOTS[slot], bare, field=slot).init()):
      assert spec["fn"] in named, f"{slot}.fn={spec['fn']!r} has a state: it needs a row above"


def test_a_schedule_of_lengths_compiles_a_few_programs():
  """Six caps, two buckets (32 and 16): as many programs, not one a step."""
  model = build_learner(read(CONFIG))
  wide = make_engine(
    model.policy, max_tokens=32, end_ids=WORDS.end_ids, pad_id=WORDS.pad_id, mesh=model.mesh
  )
  shrinking = dict(fn="geometric_points", start=30, end=6, points=5, total=6)
  run = Run(wide, budget=dict(fn="scheduled", schedule=shrinking), train=dict(max_tokens=32))
  sample = compiled(advance_stream, ())
  before = sample._cache_size()
  _, batches = run.steps(run.model.initial(), 6)
  caps = [int(b.rollouts.budget.cap.max()) for b in batches]
  assert len(set(caps)) == 6
  assert len({b.rollouts.tokens.shape for b in batches}) == 2
  assert sample._cache_size() - before == 2
  assert run.model.shape._cache_size() == 2
  assert run.model.update._cache_size() == 2


def test_entropy_is_that_of_the_policy_before_the_update(engine):
  run = Run(engine, advantage=dict(fn="canon_entropy"), train=dict(updates=2, micro_batches=2))
  state = run.model.initial()
  batch = run.batch(state)
  r = batch.rollouts
  logits = run.model.policy.apply(state.params, r.tokens)[..., :-1, :]
  log_probs = jax.nn.log_softmax(logits)
  entropy = -(jnp.exp(log_probs) * log_probs).sum(-1)
  chosen = jnp.take_along_axis(log_probs, r.tokens[..., 1:, None], -1)[..., 0]
  mask = r.mask[..., 1:]
  close = functools.partial(np.testing.assert_allclose, atol=2e-5)
  close(jnp.where(mask, entropy, 0), r.signals["entropy"][..., 1:])
  close(jnp.where(mask, chosen, 0), batch.old_log_probs[..., 1:])
  assert "old_log_probs" not in r.signals

"""Methods that strain the contract, and all that have a state: each stops, resumes, is bit-equal.

Phases and checkpoints are the real ones. Only the verifier scores in this process, and generously,
since a fresh policy is rarely right.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.registry import build
from lcrl.sampling.engine import make_engine
from lcrl.sampling.programs import advance_stream, compiled
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from tests.helpers.methods import CAP, LAST, METHODS, STOP, WORDS, Run
from tests.helpers.rl_runs import CONFIG
from tests.helpers.stages import SLOTS, TABLE

pytestmark = pytest.mark.usefixtures("one_device")


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


def shows_lapo(run, batches):
  """From the third step on a response begins with the median of its prompt's right answers."""
  assert not any(b.rollouts.budget.level.any() for b in batches[:2])
  for batch in batches[2:]:
    r = batch.rollouts
    for row, mask, target in zip(r.tokens[:, 0], r.mask[:, 0], r.budget.target[:, 0], strict=True):
      assert WORDS.decode(row[: mask.argmax()]).endswith(f"{target}=")
  assert any((b.rollouts.budget.target < CAP).any() for b in batches[2:])


def shows_adapt_think(run, batches):
  r = batches[0].rollouts
  for b, g in np.ndindex(r.lengths.shape):
    said = r.tokens[b, g][r.mask[b, g]].tolist()
    assert WORDS.decode(said).startswith(("=1", "=1", "#", "#")[g])
  assert (r.lengths[:, 2:] <= 6).all()


SHOWS = {
  "l1_exact": shows_l1,
  "hbpo": shows_hbpo,
  "dot": shows_dot,
  "pear": shows_pear,
  "dapo": shows_dapo,
  "lapo": shows_lapo,
  "adapt_think": shows_adapt_think,
}


@pytest.mark.slow
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


@pytest.mark.slow
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

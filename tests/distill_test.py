"""On-policy distillation: the teacher's term, which teacher scores what, and runs with teachers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcrl import losses, policies
from lcrl.data import tokenizers
from lcrl.losses import policy as stages
from lcrl.losses.distillation import TEACHER, reverse_kl
from lcrl.mesh import batch_sharding
from lcrl.policies import sources
from lcrl.registry import build
from lcrl.tasks.task import Prompt
from lcrl.training import kinds
from lcrl.training.checkpoint import Checkpoints
from lcrl.training.distill import provider
from lcrl.training.distill.table import Teachers, table_of
from lcrl.training.rl import learner as learner_of
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.settings import read
from lcrl.training.workdir import Workdir
from lcrl.types import Batch, TokenScores
from tests.helpers.rl_runs import changed
from tests.helpers.saved_runs import save_run
from tests.rollouts import random_rollouts

DISTILL = dict(fn="reverse_kl", coefficient=1.0, limit=5.0)
TINY = dict(fn="fresh", vocab_size=20, hidden_size=16, layers=1, mlp_size=16)
OTHER = TINY | dict(param_dtype="bfloat16")  # other parameters for the same programs
ONE = dict(data=1, fsdp=1, devices=1)
EFFORTS = dict(fn="effort", efforts=(0.5, 1.0), tokens=16, cap=16)


def config(**more):
  """A run of "distill" with a teacher for each of two efforts."""
  found = changed(reward=None, filter=None, advantage=None, budget=EFFORTS, loss__distill=DISTILL)
  found["task"] = found["task"] | dict(render=dict(fn="suffix", templates=("", "")))
  return found | dict(run="distill", mesh=ONE, teachers=dict(models=[TINY, OTHER])) | more


def twin(log_probs, teacher, mask, limit):
  """`teacher_advantage` in NumPy, token by token."""
  out = np.zeros(mask.shape)
  for at in np.argwhere(mask):
    out[tuple(at)] = min(max(teacher[tuple(at)] - log_probs[tuple(at)], -limit), limit)
  return out


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16), limit=st.sampled_from([0.3, 2.0, np.inf]))
def test_the_term_is_the_twins_whatever_stands_behind_the_mask(seed, limit):
  rng = np.random.default_rng(seed)
  log_probs, teacher = -rng.exponential(size=(2, 3, 5)), -rng.exponential(size=(2, 3, 5))
  mask = rng.random((2, 3, 5)) < 0.6
  dirty = [jnp.where(mask, x, jnp.nan) for x in (log_probs, teacher)]
  got = losses.teacher_advantage(*dirty, jnp.asarray(mask), limit=limit)
  np.testing.assert_allclose(got, twin(log_probs, teacher, mask, limit), rtol=1e-5, atol=1e-7)


def taught(teacher, stage, advantages):
  """(loss, gradient) of a batch whose policy has the sampler's log-probs."""
  r = random_rollouts(1)
  r = dataclasses.replace(r, signals={TEACHER: teacher(r)})
  weights = losses.token_mean(r.mask, r.valid)
  batch = Batch(r, r.scores, r.valid, advantages(r), weights)
  loss = lambda x: stage.apply((), TokenScores(x), batch)[0]
  return r, weights, *jax.value_and_grad(loss)(r.sampler_log_probs)


@pytest.mark.parametrize(
  "name", ["clipped_surrogate", "sequence_clipped_surrogate", "cispo", "sapo"]
)
def test_the_policy_as_its_own_teacher_has_no_gradient(name):
  stage = build(stages, dict(fn=name, distill=DISTILL), field="loss")
  assert stage.needs == (TEACHER,)
  _, _, _, grad = taught(lambda r: r.sampler_log_probs, stage, lambda r: 0.0 * r.scores)
  assert not np.asarray(grad).any()


def test_the_term_adds_to_the_advantages_of_a_reward():
  """Gaps of 0.5, cut at 0.25, times 2, beside an advantage of the score."""
  distill = reverse_kl(coefficient=2.0, limit=0.25)
  stage = losses.clipped_surrogate(distill=distill)
  teacher = lambda r: r.sampler_log_probs + 0.5
  r, weights, _, grad = taught(teacher, stage, lambda r: r.scores)
  want = -jnp.where(r.mask, weights * (r.scores[..., None] + 0.5), 0)
  np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-7)
  batch = Batch(r, r.scores, r.valid, r.scores, weights)
  shares = stage.fractions((), TokenScores(r.sampler_log_probs), batch)
  np.testing.assert_allclose(shares["teacher_kl"], -0.5, rtol=1e-5)
  assert shares["teacher_clip_fraction"] == 1
  forced = r.mask & (jnp.cumsum(r.mask, -1) == 1)  # the policy did not draw it
  batch = dataclasses.replace(batch, rollouts=dataclasses.replace(r, undrawn=forced))
  loss = lambda x: stage.apply((), TokenScores(x), batch)[0]
  grad = jax.grad(loss)(r.sampler_log_probs)
  want = -jnp.where(r.mask, weights * (r.scores[..., None] + 0.5 * ~forced), 0)
  np.testing.assert_allclose(grad, want, rtol=1e-5, atol=1e-7)
  for coefficient, limit in ((0.0, 1.0), (1.0, 0.0)):
    with pytest.raises(ValueError, match=r"(coefficient|limit) must be positive, got 0\.0"):
      reverse_kl(coefficient=coefficient, limit=limit)
  with pytest.raises(ValueError, match=r"limit must be positive, got -1\.0"):
    losses.teacher_advantage(*[jnp.zeros(1)] * 2, jnp.ones(1, bool), limit=-1.0)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_a_step_lowers_the_reverse_kl(seed):
  """The expected gradient, each token weighted by its probability, is that of the reverse KL."""
  logits, teacher = jax.random.normal(jax.random.key(seed), (2, 7))
  teacher = jax.nn.log_softmax(teacher)

  def kl(logits):
    log_probs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probs) * (log_probs - teacher))

  def loss(logits):
    log_probs = jax.nn.log_softmax(logits)
    advantages = losses.teacher_advantage(log_probs, teacher, jnp.ones(7, bool))
    return -jnp.sum(jax.lax.stop_gradient(jnp.exp(log_probs)) * advantages * log_probs)

  step = jax.grad(loss)(logits)
  np.testing.assert_allclose(step, jax.grad(kl)(logits), rtol=1e-3, atol=1e-5)
  assert kl(logits - 0.05 * step) < kl(logits)


@pytest.mark.parametrize(
  ("models", "field", "message"),
  [
    ({"math": "a"}, None, "teachers.field names the field of the prompts' rows"),
    ("a", "domain", "set both, or neither, got field='domain' and models='a'"),
    ([], None, r"teachers.models must name a model, got \[\]"),
    ({"math": ["a", "b"], "code": ["c"] * 3}, "domain", "lists of 2 and 3 models"),
    ({"math": ["a", 3]}, "domain", r"models\['math'\]\[1\] must be a folder or a section"),
  ],
)
def test_tables_that_are_none(models, field, message):
  with pytest.raises(ValueError, match=message):
    table_of(Teachers(models, field))


def test_a_field_and_a_level_choose_the_teacher():
  table = table_of(Teachers({"math": ["a", "b"], "code": "a"}, "domain"))
  assert table.models == ("a", "b")  # one model is loaded once
  prompts = [Prompt(i, (), "", row={"domain": d}) for i, d in enumerate(("code", "math"))]
  values = provider.values_of(table, "domain", prompts)
  r = random_rollouts(prompts=2, group=3)
  level = jnp.array([[0, 1, 1], [0, 1, 2]])
  r = dataclasses.replace(r, budget=dataclasses.replace(r.budget, level=level))
  which, counts = provider.chosen(table, values, r)
  np.testing.assert_array_equal(which, [[0, 0, 0], [0, 1, 2]])
  np.testing.assert_array_equal(counts, [4, 1, 1])  # no teacher has the level 2
  odd = [Prompt(0, (), "", row={"domain": "law"})]
  with pytest.raises(ValueError, match="no model for domain='law' of prompt 0: it has math, code"):
    provider.values_of(table, "domain", odd)


@pytest.mark.parametrize(
  ("more", "message"),
  [
    (dict(reward=dict(fn="correctness")), "run='distill' has no section reward"),
    (dict(then=[dict(at=2, advantage=dict(fn="raw"))]), "run='distill' has no section advantage"),
    (dict(teachers=None), r"no section \['teachers'\]"),
    (dict(loss=dict(fn="sapo")), "loss.distill needs a section teachers"),
    (dict(teachers=dict(models=dict(TINY, layer=1))), "teachers.models.layer is not an argument"),
    (dict(teachers=dict(models=[TINY, OTHER, TINY])), "has 2 levels and teachers.models 3"),
    (dict(budget=dict(fn="fixed", target=4)), "has 1 levels and teachers.models 2"),
    (
      dict(teachers=dict(models=dict(TINY, vocab_size=21))),
      "teachers.models: fresh has another vocabulary",
    ),
  ],
)
def test_configs_that_are_refused(more, message, tmp_path):
  given = config(**more)
  with pytest.raises(ValueError, match=message):  # noqa: SIM117
    with kinds.kind(given).read(given)(Workdir(tmp_path, given)):
      pass


def prompted(length=12):
  """Rollouts of two groups, whose rows share their prompts, at three levels of effort."""
  r = random_rollouts(2, prompts=4, group=4, length=length, vocab=20)
  prompt = jnp.arange(length) < 3
  tokens = jnp.where(prompt, r.tokens[:, :1], r.tokens)
  level = jax.random.randint(jax.random.key(5), r.lengths.shape, 0, 2)
  return dataclasses.replace(
    r, tokens=tokens, budget=dataclasses.replace(r.budget, level=level.astype(jnp.int32))
  )


SIZES = dict(steps=1, prompts=4, group_size=4, max_tokens=9, max_prompt_tokens=3)


def test_each_teacher_scores_its_own_rollouts(monkeypatch):
  cut, mesh = dict(pack=12, micro_tokens=24), dict(data=1, fsdp=2, devices=2)
  given = config(train=SIZES | cut, mesh=mesh, eval_task=dict(same=True))
  learner, read = build_learner(kinds.kind(given).settings(given)), []

  def make_measure(*args):
    measure = learner_of.make_measure(*args)
    return lambda params, r: read.append(int(r.mask.sum())) or measure(params, r)

  monkeypatch.setattr(provider, "make_measure", make_measure)
  [teacher] = provider.provider(learner, tokenizers.sums(), [])
  r = jax.device_put(prompted(), batch_sharding(learner.mesh))
  [got] = teacher.read((), r).values()
  assert len(read) == 2
  assert sum(read) == r.mask.sum()  # together they read the batch once
  for i, spec in enumerate((TINY, OTHER)):
    source = build(sources, spec, field="policy")
    params = source.params(jax.random.fold_in(jax.random.key(given["seed"]), i + 1))
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    logits = jax.jit(source.policy.apply)(params, prompted().tokens)
    want = jnp.take_along_axis(jax.nn.log_softmax(logits)[..., :-1, :], r.tokens[..., 1:, None], -1)
    own = (r.budget.level == i)[..., None] & r.mask
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    close(jnp.where(own, got, 0)[..., 1:], jnp.where(own[..., 1:], want[..., 0], 0))
  far = dataclasses.replace(r.budget, level=r.budget.level + 1)
  with pytest.raises(ValueError, match="rollouts a level without a teacher"):
    teacher.read((), dataclasses.replace(r, budget=far))


def test_a_run_folder_and_a_model_folder_are_teachers(tmp_path):
  policy, params = save_run(tmp_path / "run", changed(mesh=ONE), steps=(1, 2))
  policies.save(tmp_path / "model", policy, params)
  learner = build_learner(read(changed(train=SIZES, mesh=dict(data=1, fsdp=2, devices=2))))
  for name in ("run", "model"):
    source = provider.load(str(tmp_path / name), "teachers.models", tokenizers.sums(), 20)
    got = provider.parameters(source, learner, 0)
    assert source.policy.config.vocab_size == 20
    want = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert {x.dtype.name for x in jax.tree.leaves(got)} == {"bfloat16"}
  for name, tokenizer, message in (
    ("run", tokenizers.utf8(), "teachers.models: .*run has another vocabulary"),
    ("none", tokenizers.sums(), "teachers.models: .*There is no model folder"),
  ):
    with pytest.raises((ValueError, OSError), match=message):
      provider.load(str(tmp_path / name), "teachers.models", tokenizer, 20)
  given = config(train=SIZES, mesh=ONE)
  given["teachers"] = dict(models=dict(fn="run", path=str(tmp_path / "run"), step=7))
  learner = build_learner(kinds.kind(given).settings(given))
  with pytest.raises(ValueError, match=r"teachers\.models: there is no checkpoint .*7"):
    provider.provider(learner, tokenizers.sums(), [])
  missing = dict(fn="run", path=str(tmp_path / "model"))
  with pytest.raises(ValueError, match="is not the config of a run"):
    provider.load(missing, "teachers.models", tokenizers.sums(), 20)


def test_a_run_approaches_its_teachers_and_resumes_bit_equal(tmp_path):
  given, kl = config(), []

  def advance(state, first, last):
    step = run.steps_from(first)
    for _ in range(first, last):
      state, numbers, _ = step(state)
      kl.append(numbers["teacher_kl"])
    return state

  out = Workdir(tmp_path, given)
  with kinds.kind(given).read(given)(out) as run, out.open(None, 4):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    stopped = advance(run.initial(), 0, 8)
    checkpoints.save(8, stopped)
    checkpoints.wait()
    whole = advance(stopped, 8, 16)
    again = advance(checkpoints.restore(run.abstract)[1], 8, 16)
    checkpoints.close()
  jax.tree.map(np.testing.assert_array_equal, again, whole)
  assert kl[8:16] == kl[16:]
  assert np.mean(kl[12:16]) < 0.7 * np.mean(kl[:2])


def test_what_a_prefix_forced_is_in_no_share():
  """The teacher differs there alone."""
  r = random_rollouts(1)
  forced = r.mask & (jnp.cumsum(r.mask, -1) == 1)
  signals = {TEACHER: r.sampler_log_probs - 0.5 * forced}
  r = dataclasses.replace(r, signals=signals, undrawn=forced)
  batch = Batch(r, r.scores, r.valid, r.scores, losses.token_mean(r.mask, r.valid))
  stage = losses.clipped_surrogate(distill=reverse_kl(limit=0.25))
  shares = stage.fractions((), TokenScores(r.sampler_log_probs), batch)
  assert (shares["teacher_kl"], shares["teacher_clip_fraction"]) == (0, 0)

"""Laws that every stage of every slot obeys. A new method joins by one row of TABLE."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import advantages, budgets, filters, losses, rewards
from lcrl.losses import policy
from lcrl.registry import build
from lcrl.training.metric_names import explanation
from lcrl.types import Batch, TokenScores
from tests.rollouts import random_rollouts

SLOTS = {
  "budget": budgets,
  "reward": rewards,
  "filter": filters,
  "advantage": advantages,
  "loss": policy,
}
LASER = dict(fn="correctness", right=1.0, wrong=-0.5, bad_format=-1.0)
K3 = dict(fn="k3", beta=0.1)
LAGRANGIAN = dict(
  fn="lagrangian",
  main=dict(fn="kl_penalty", beta=1.0, base=dict(fn="correctness", right=0.0)),
  components=[dict(fn="correctness"), dict(fn="length_penalty", alpha=0.1)],
  targets=[0.5, -1.0],
)
RESTARTS = dict(low=0.0, high=0.6, warmup=30, period=40)
# What a reward does as its own response grows longer, others unchanged: of a right answer, and of a
# wrong one, which never gains by being short unless it FALLS.
FALLS, RISES, STILL, ANY = "falls", "rises", "still", "any"
ROWS = [
  ("budget", dict(fn="fixed", target=5)),
  ("budget", dict(fn="uniform", low=2, high=9, cap=12)),
  ("budget", dict(fn="uniform_level", targets=(4, 8))),
  ("budget", dict(fn="subgroups", targets=(4, 8))),
  ("budget", dict(fn="scheduled", schedule=dict(fn="cosine_cycle", low=2, high=9, period=8))),
  ("budget", dict(fn="scheduled", schedule=dict(fn="stair_cosine", low=2, high=9, period=8))),
  ("reward", LASER, STILL, STILL),
  ("reward", dict(fn="length_penalty", alpha=0.01), FALLS, FALLS),
  (
    "reward",
    dict(fn="soft_overlong", max_length=8, buffer=4, base=dict(fn="hapo", rows=4)),
    FALLS,
    FALLS,
  ),
  ("reward", dict(fn="exact_length"), ANY, ANY),
  ("reward", dict(fn="max_length"), FALLS, STILL),
  ("reward", dict(fn="step_bonus", explore=0.5, base=LASER), FALLS, RISES),
  ("reward", dict(fn="truncation", late_scale=0.1), FALLS, STILL),
  ("reward", dict(fn="sigmoid_length"), FALLS, STILL),
  ("reward", dict(fn="kimi"), FALLS, FALLS),
  ("reward", dict(fn="grpo_lambda", share=0.5), FALLS, STILL),
  ("reward", dict(fn="laser_d", lower=2, upper=9, interval=2, initial=5, base=LASER), FALLS, STILL),
  ("reward", dict(fn="tiered_truncation", limits=(8, 4)), FALLS, STILL),
  ("reward", dict(fn="curriculum", score=dict(fn="band")), FALLS, FALLS),
  ("reward", dict(fn="hapo", rows=4), FALLS, FALLS),
  ("reward", dict(fn="hapo_mean", rows=4, score=dict(fn="linear_history")), FALLS, FALLS),
  ("reward", dict(fn="repetition_penalty", ngram=2), ANY, ANY),
  ("reward", dict(fn="level_penalty", penalty_by_level=(0.2, 0.5), max_length=8), FALLS, FALLS),
  ("reward", dict(fn="conciseness", anneal_steps=10), STILL, STILL),
  ("reward", dict(fn="pear"), ANY, STILL),
  ("reward", dict(fn="answer_truncation"), FALLS, STILL),
  ("reward", dict(fn="cosine_length", max_length=9, margin=2), FALLS, ANY),
  ("reward", dict(fn="format_length", max_length=9), ANY, ANY),
  ("reward", dict(fn="length_range", low=3, high=5, max_length=9), ANY, ANY),
  ("reward", dict(fn="shorter_better", beta=0.1), FALLS, ANY),
  ("reward", dict(fn="alp", beta=0.01), FALLS, FALLS),
  ("reward", dict(fn="lcr1"), FALLS, STILL),
  ("reward", dict(fn="conciser", max_length=9), FALLS, STILL),
  ("reward", dict(fn="gr3"), FALLS, STILL),
  ("reward", dict(fn="grlc", bonus=0.0), FALLS, FALLS),  # the bonus goes to the first of equals
  ("reward", dict(fn="hbpo", max_length=9), FALLS, STILL),
  ("reward", dict(fn="acoer", interval=1), FALLS, STILL),
  ("reward", dict(fn="adactrl"), FALLS, STILL),
  ("reward", dict(fn="preferred_mode"), STILL, STILL),
  ("reward", dict(fn="rule_fraction", rules=("has_think", "has_answer")), STILL, STILL),
  ("reward", dict(fn="length_dual", target=3, base=dict(fn="hapo", rows=4)), FALLS, FALLS),
  ("reward", dict(fn="kl_penalty", beta=0.1), ANY, ANY),
  ("reward", LAGRANGIAN, ANY, ANY),
  ("reward", dict(fn="mrt"), STILL, STILL),
  ("reward", dict(fn="o1_pruner", low=-2.0, high=4.0), FALLS, FALLS),
  ("filter", dict(fn="keep_all")),
  ("filter", dict(fn="mixed_correctness")),
  ("filter", dict(fn="all_right")),
  ("filter", dict(fn="nonconstant_reward")),
  ("filter", dict(fn="untruncated", base=dict(fn="mixed_correctness"))),
  ("filter", dict(fn="shortest", count=2)),
  ("filter", dict(fn="most_efficient", count=2)),
  ("filter", dict(fn="adaptive_shortest", counts=(3, 2, 2, 1), window=6, warmup=2)),
  ("advantage", dict(fn="group_normalized")),
  ("advantage", dict(fn="group_centered", over_valid=True)),
  ("advantage", dict(fn="leave_one_out")),
  ("advantage", dict(fn="batch_scaled")),
  ("advantage", dict(fn="raw")),
  ("advantage", dict(fn="multi_discount", ngram=2, base=dict(fn="reinforce", gamma=0.9))),
  ("advantage", dict(fn="thinking_compression")),
  ("advantage", dict(fn="reinforce_baseline")),
  ("advantage", dict(fn="reinforce", gamma=0.9)),
  ("advantage", dict(fn="canon_length", mu=dict(fn="accuracy_mix"), alpha=0.9)),
  ("advantage", dict(fn="canon_entropy", mu=dict(fn="cosine_restarts", **RESTARTS))),
  ("advantage", dict(fn="budget_subgroup", max_length=8)),
  ("advantage", dict(fn="qglas")),
  ("advantage", dict(fn="component_average", signals=("conciseness",))),
  ("loss", dict(fn="clipped_surrogate", dual_clip=3.0, kl=K3, correction=dict(fn="truncated"))),
  ("loss", dict(fn="sequence_clipped_surrogate", correction=dict(fn="rejected"))),
  ("loss", dict(fn="cispo", kl=dict(fn="k2", beta=0.1), entropy_bonus=0.1)),
  ("loss", dict(fn="sapo")),
  ("loss", dict(fn="mode_switch", threshold=0.0, base=dict(fn="clipped_surrogate"))),
  ("loss", dict(fn="kl_cov", share=0.2)),
  ("loss", dict(fn="drpo", max_length=9)),
]
TABLE = [row[:2] for row in ROWS]
IDS = [f"{slot}-{spec['fn']}" for slot, spec in TABLE]


@functools.cache
def inputs(seed):
  """Everything that any stage reads, with a ragged group and every signal."""
  r = random_rollouts(seed)
  keys = jax.random.split(jax.random.key(seed + 1), 6)
  flags = jax.random.bernoulli(keys[0], 0.5, r.correct.shape)
  noise = lambda key: jnp.where(r.mask, jax.random.normal(key, r.mask.shape), 0)
  target = jax.random.randint(keys[1], r.lengths.shape, 3, 9)
  r = dataclasses.replace(
    r,
    valid=r.valid.at[1, 2:].set(False),
    sampler_log_probs=-jnp.abs(noise(keys[2])),
    outcome=jnp.where(r.correct, 0, 1 + flags).astype(jnp.int8),
    budget=dataclasses.replace(r.budget, target=target, level=flags.astype(jnp.int32)),
    signals={
      "has_think": flags,
      "has_answer": ~flags,
      "conciseness": jax.random.uniform(keys[3], flags.shape),
      "entropy": jnp.abs(noise(keys[4])),
      "think_end": r.lengths // 2 - 1,
      "tag": target % 3,
      "answer_length": r.lengths - 1,
      "think_length": jnp.maximum(r.lengths // 2, 1),
      "needed": r.lengths // 4,
      "ref_log_probs": noise(keys[2]),
      "value_before": jax.random.uniform(keys[4], flags.shape),
      "value_after": jax.random.uniform(keys[5], flags.shape),
    },
  )
  keep = r.valid.at[0, 0].set(False)
  values = jax.random.normal(keys[5], r.lengths.shape)
  old, ref = r.sampler_log_probs + noise(keys[0]) / 4, r.sampler_log_probs + noise(keys[1])
  weights = losses.token_mean(r.mask, keep)
  batch = Batch(r, values, keep, values, weights, old, ref)
  return batch, old + noise(keys[2]) / 4


def scored(log_probs):
  """Token scores of which every field depends on the log-probs."""
  return TokenScores(log_probs, entropy=-log_probs, logits_at=2 * log_probs)


def calls(slot, stage):
  """(state, batch, log_probs) -> (output, new state), whatever the slot."""

  def budget(state, batch, log_probs):
    r = batch.rollouts
    knobs = dict(step=jnp.array(3), key=jax.random.key(0), group_size=r.lengths.shape[1])
    out, state = stage.apply(state, r.prompt_ids, **knobs)
    return jnp.stack([out.target, out.cap, out.level], -1), state

  def advantage(state, batch, log_probs):
    return stage.apply(state, batch.rewards, batch.keep, batch.rollouts)

  def loss(state, batch, log_probs):
    return stage.apply(state, scored(log_probs), batch)

  return {
    "budget": budget,
    "reward": lambda state, batch, log_probs: stage.apply(state, batch.rollouts),
    "filter": lambda state, batch, log_probs: stage.apply(state, batch.rewards, batch.rollouts),
    "advantage": advantage,
    "loss": loss,
  }[slot]


@pytest.mark.parametrize("slot", SLOTS)
def test_the_table_has_every_stage(slot):
  module = SLOTS[slot]
  makers = {
    name
    for name in module.__all__
    if callable(getattr(module, name))
    and inspect.signature(getattr(module, name)).return_annotation == "Stage"
  }
  assert makers == {spec["fn"] for s, spec in TABLE if s == slot}


def rows(batch):
  """Which outputs count: those of real rows."""
  return np.asarray(batch.rollouts.valid)


@pytest.mark.parametrize("slot, spec", TABLE, ids=IDS)
def test_common_laws(slot, spec):
  stage = build(SLOTS[slot], spec, field=slot)
  fields = ("entropy", "logits_at") if slot == "loss" else ()
  assert set(stage.needs) <= {"ref", "group", *fields, *inputs(0)[0].rollouts.signals}
  call = jax.jit(calls(slot, stage))
  batch, log_probs = inputs(0)
  state = stage.init()
  out, new = call(state, batch, log_probs)
  real = rows(batch) if out.ndim else ()

  # State keeps structure, shapes and types, and is finite or what it was.
  assert jax.tree.structure(new) == jax.tree.structure(state)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)
    assert not np.any(np.isnan(b))

  if stage.targets:
    for x in jax.jit(stage.targets)(state, batch.rollouts).values():
      assert (x.shape, x.dtype) == (batch.keep.shape, jnp.float32)
      assert not np.any(np.isnan(x[real]))
  if jax.tree.leaves(state):  # what has a state tells it, under names that are explained
    told = stage.numbers(new)
    assert told
    for name in told:
      assert explanation(f"state/{slot}/{name}") != explanation("state/slot/stage/number"), name

  if stage.observe:
    seen = jax.jit(stage.observe)(new, batch.rollouts)
    jax.tree.map(
      lambda a, b: np.testing.assert_equal((a.shape, a.dtype), (b.shape, b.dtype)), seen, state
    )

  # Shape, type, finite.
  assert out.dtype == {"budget": jnp.int32, "filter": bool}.get(slot, jnp.float32)
  assert out.shape[:2] == (() if slot == "loss" else batch.keep.shape)
  assert np.all(np.isfinite(out[real]))
  if slot in ("filter", "advantage"):
    hidden = ~batch.rollouts.valid if slot == "filter" else ~batch.keep
    assert not np.any(out[hidden])

  # Nothing behind a mask or in an invalid row matters.
  junk, junk_log_probs = garbage(batch, log_probs, slot, spec.get("over_valid", False))
  got, got_new = call(state, junk, junk_log_probs)
  np.testing.assert_array_equal(got[real], out[real])
  jax.tree.map(np.testing.assert_array_equal, got_new, new)

  # Order inside a group does not matter.
  order = jnp.array([2, 0, 3, 1])
  moved = jax.tree.map(lambda x: permuted(x, batch, order), (batch, log_probs))
  got, got_new = call(state, *moved)
  if slot != "budget":
    real = rows(moved[0]) if out.ndim else ()
    want = out[:, order] if out.ndim else out
    np.testing.assert_allclose(got[real], want[real], rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got_new, new)


@pytest.mark.parametrize("slot, spec", TABLE, ids=IDS)
def test_vmapped_in_other_types(slot, spec):
  call = calls(slot, build(SLOTS[slot], spec, field=slot))
  pair = inputs(0), inputs(7)
  state = build(SLOTS[slot], spec, field=slot).init()
  want, _ = jax.jit(call)(state, *pair[1])
  for dtype in (jnp.bfloat16, jnp.float64):
    with jax.enable_x64(dtype == jnp.float64):
      stack = lambda *xs: jnp.stack(xs)
      batches = jax.tree.map(stack, *[cast(item, dtype) for item in pair])
      states = jax.tree.map(stack, state, state)
      out, new = jax.jit(jax.vmap(call))(states, *batches)
    assert [x.dtype for x in jax.tree.leaves(new)] == [x.dtype for x in jax.tree.leaves(states)]
    real = rows(pair[1][0]) if want.ndim else ()
    got = np.asarray(out[1])[real]
    assert np.all(np.isfinite(got))
    if slot not in ("budget", "filter"):
      assert out.dtype == (jnp.float64 if dtype == jnp.float64 else jnp.float32)
    if dtype == jnp.float64:
      np.testing.assert_allclose(got, want[real], rtol=1e-4, atol=1e-5)


def cast(tree, dtype):
  """Its floating-point arrays in another type."""
  to = lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
  return jax.tree.map(to, tree)


def garbage(batch, log_probs, slot, over_valid=False):
  """The same batch with nan and nonsense in invalid rows and behind the mask."""
  r = batch.rollouts
  bad_row = ~r.valid
  off = (~batch.keep if slot == "loss" else bad_row)[..., None] | ~r.mask
  fill = lambda x, where: jnp.where(
    where, jnp.array(jnp.nan if jnp.issubdtype(x.dtype, jnp.floating) else 7).astype(x.dtype), x
  )
  signals = {k: fill(v, off if v.ndim == 3 else bad_row) for k, v in r.signals.items()}
  junk = dataclasses.replace(
    r,
    tokens=fill(r.tokens, off),
    sampler_log_probs=fill(r.sampler_log_probs, off),
    lengths=jnp.where(bad_row, 999, r.lengths),
    correct=r.correct ^ bad_row,
    truncated=r.truncated ^ bad_row,
    scores=fill(r.scores, bad_row),
    signals=signals,
  )
  hidden = bad_row if slot == "filter" or over_valid else ~batch.keep
  batch = dataclasses.replace(
    batch,
    rollouts=junk,
    rewards=fill(batch.rewards, hidden),
    old_log_probs=fill(batch.old_log_probs, off),
    ref_log_probs=fill(batch.ref_log_probs, off),
  )
  return batch, fill(log_probs, off)


def permuted(x, batch, order):
  return x[:, order] if x.shape[:2] == batch.keep.shape else x


@pytest.mark.parametrize(
  "spec", [spec for slot, spec in TABLE if slot == "loss"], ids=lambda s: s["fn"]
)
def test_loss_gradient_stops_at_the_mask(spec):
  stage = build(policy, spec, field="loss")
  batch, log_probs = inputs(3)
  grad = jax.jit(jax.grad(lambda x, b: stage.apply((), scored(x), b)[0]))
  want = grad(log_probs, batch)
  trains = np.asarray(batch.rollouts.mask & batch.keep[..., None])
  assert np.all(np.isfinite(want))
  assert not np.any(np.asarray(want)[~trains])
  assert np.count_nonzero(want) > trains.sum() // 4
  junk, junk_log_probs = garbage(batch, log_probs, "loss")
  np.testing.assert_array_equal(grad(junk_log_probs, junk), want)


# Rewards whose arguments decide whether wrong answers pay for length.
VARIANTS = [
  ("reward", dict(fn="alp", beta=0.01, apply_to_incorrect=False), FALLS, STILL),
  ("reward", dict(fn="shorter_better", beta=0.1, apply_to_incorrect=False), FALLS, STILL),
  ("reward", dict(fn="lcr1", apply_to_incorrect=True), FALLS, FALLS),
  ("reward", dict(fn="step_bonus", base=LASER), FALLS, STILL),
  ("reward", dict(fn="curriculum", length_weight=0.0), STILL, STILL),
]


REWARDS = [row for row in (*ROWS, *VARIANTS) if row[0] == "reward"]


def of_length(r, length, right):
  """The first rollout with another length and verdict, all of it thinking, of an easy tag."""
  own = jnp.zeros(r.lengths.shape, bool).at[0, 0].set(True)
  since = jnp.arange(r.mask.shape[-1])[None, None] - jnp.argmax(r.mask, -1, keepdims=True)
  pick = lambda new, old: jnp.where(own, new, old)
  signals = {name: pick(new, r.signals[name]) for name, new in (("think_end", -1), ("tag", 1))}
  signals["answer_length"] = pick(length, r.signals["answer_length"])
  return dataclasses.replace(
    r,
    mask=jnp.where(own[..., None], (since >= 0) & (since < length), r.mask),
    lengths=pick(length, r.lengths),
    correct=pick(right, r.correct),
    outcome=pick(jnp.where(right, 0, 1), r.outcome).astype(jnp.int8),
    truncated=pick(False, r.truncated),
    signals=r.signals | signals,
  )


def test_rewards_follow_length_as_their_rows_say():
  stages = [build(rewards, spec, field="reward") for _, spec, *_ in REWARDS]
  before, lengths = inputs(7)[0].rollouts, jnp.arange(1, 10)
  some, others = (inputs(seed)[0].rollouts for seed in (0, 3))
  solved = dataclasses.replace(some, correct=jnp.ones_like(some.correct))

  @jax.jit
  def earned(stacked):
    """One array a stage: [rollouts, right or wrong, lengths]."""
    found = []
    for stage in stages:
      _, state = stage.apply(stage.init(), before)
      own = lambda r, right, n, stage=stage, state=state: stage.apply(
        state, of_length(r, n, right)
      )[0][0, 0]
      over_lengths = jax.vmap(own, (None, None, 0))
      over_verdicts = jax.vmap(over_lengths, (None, 0, None))
      table = jax.vmap(over_verdicts, (0, None, None))
      found.append(table(stacked, jnp.array([True, False]), lengths))
    return found

  found = earned(jax.tree.map(lambda *xs: jnp.stack(xs), some, others, solved))
  faults = []
  for (_, spec, *claims), got in zip(REWARDS, found, strict=True):
    for claim, steps in zip(claims, np.diff(got).swapaxes(0, 1), strict=True):
      up, down = np.any(steps > 1e-6), np.any(steps < -1e-6)
      if {FALLS: up or not down, RISES: down or not up, STILL: up or down, ANY: False}[claim]:
        faults.append(f"{spec} does not {claim}: {steps}")
  assert not faults, "\n".join(faults)

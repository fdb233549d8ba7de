"""Laws that every stage of every slot obeys. A new method joins by a row of TABLE in helpers."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import rewards
from lcrl.losses import policy
from lcrl.registry import build
from lcrl.training.metric_names import explanation
from lcrl.types import TokenScores
from tests.helpers.stages import (
  ANY,
  FALLS,
  LASER,
  RISES,
  ROWS,
  SLOTS,
  STILL,
  TABLE,
  inputs,
)

IDS = [f"{slot}-{spec['fn']}" for slot, spec in TABLE]


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


def untold(batch):
  """A batch of which nobody knows what was truncated."""
  return dataclasses.replace(
    batch, rollouts=dataclasses.replace(batch.rollouts, truncated=object())
  )


@pytest.mark.parametrize("slot, spec", TABLE, ids=IDS)
def test_common_laws(slot, spec):
  stage = build(SLOTS[slot], spec, field=slot)
  fields = ("entropy", "logits_at") if slot == "loss" else ()
  known = {"ref", "group", "truncated", *fields, *inputs(0)[0].rollouts.signals}
  assert set(stage.needs) <= known
  call = jax.jit(calls(slot, stage))
  batch, log_probs = inputs(0)
  state = stage.init()
  if "truncated" not in stage.needs:  # then nothing that could be done with it is done
    jax.eval_shape(lambda s, b, x: calls(slot, stage)(s, untold(b), x), state, batch, log_probs)
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
  of_row = lambda v: bad_row.reshape(bad_row.shape + (1,) * (v.ndim - 2))
  of = lambda v: off if v.shape == off.shape else of_row(v)
  signals = {k: fill(v, of(v)) for k, v in r.signals.items()}
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
  ("reward", dict(fn="linear_penalty", gated=True, scale=9.0), FALLS, STILL),
  ("reward", dict(fn="grpo_lead", spare_up_to=3.0), ANY, STILL),
  ("reward", dict(fn="length_suite", shortest_bonus=0.1, longest_penalty=0.1), FALLS, STILL),
  ("reward", dict(fn="length_suite", relative=0.1, part="think"), FALLS, STILL),
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

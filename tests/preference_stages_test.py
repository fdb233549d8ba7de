"""Laws of every preference stage, and each against the bare functions it stands for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.losses import preference as pref
from lcrl.losses.preference import stages
from lcrl.losses.weights import token_mean
from lcrl.named import build
from lcrl.types import PairBatch, Pairs, TokenScores

TABLE = [
  dict(fn="dpo"),
  *(dict(fn="dpo", link=dict(fn=f)) for f in ("robust", "hinge", "exo", "discopop")),
  *(dict(fn="dpo", divergence=dict(fn=f)) for f in ("forward_kl", "js", "alpha_divergence")),
  dict(fn="dpo", tokens=dict(fn="common_length")),
  dict(fn="ln_dpo"),
  dict(fn="ld_dpo"),
  dict(fn="ld_dpo", policy_only=True),
  dict(fn="sampo"),
  dict(fn="sampo", two_draws=True),
  dict(fn="r_dpo"),
  dict(fn="ipo"),
  dict(fn="ipo", tokens=dict(fn="sums")),
  dict(fn="nca"),
  dict(fn="bco_pair"),
  dict(fn="bco"),
  dict(fn="apo_zero"),
  dict(fn="apo_down"),
  dict(fn="dpop"),
  dict(fn="rpo"),
  dict(fn="longpo"),
  dict(fn="wpo"),
  dict(fn="sppo"),
  dict(fn="sppo_hard"),
  dict(fn="inpo"),
  dict(fn="aot"),
  dict(fn="aot", paired=False),
  dict(fn="beta_dpo"),
  dict(fn="lmpo"),
  dict(fn="kto"),
  dict(fn="simpo"),
  dict(fn="cpo_simpo"),
  dict(fn="alphapo"),
  dict(fn="cpo"),
  dict(fn="orpo"),
  dict(fn="slic"),
  dict(fn="nll"),
  dict(fn="combined", simpo=dict(fn="simpo"), nll=dict(fn="nll"), by=dict(simpo=1.0, nll=0.1)),
]
B, T = 6, 9


def name(spec):
  parts = [
    spec["fn"],
    *(v["fn"] if isinstance(v, dict) and "fn" in v else k for k, v in spec.items() if k != "fn"),
  ]
  return "-".join(parts)


def case(seed=0, *, junk=0.0, dtype=jnp.float32):
  """(scores, batch) of B pairs, three sides each; the last pair is none. Junk stands where masks do."""
  rng = np.random.default_rng(seed)
  lengths = rng.integers(1, T - 2, (B, 3))
  lengths[-1] = 0
  starts = rng.integers(1, 3, (B, 1))
  place = np.arange(T)
  mask = (place >= starts[..., None]) & (place < (starts + lengths)[..., None])
  draw = lambda: jnp.where(mask, jnp.asarray(-rng.exponential(1.0, (B, 3, T)), dtype), junk)
  valid = jnp.arange(B) < B - 1
  wins = jnp.where(valid[:, None], jnp.asarray(rng.uniform(size=(B, 2)), dtype), junk)
  pairs = Pairs(
    tokens=jnp.zeros((B, 3, T), jnp.int32),
    mask=jnp.asarray(mask),
    lengths=jnp.asarray(lengths, jnp.int32),
    valid=valid,
    pair_ids=jnp.where(valid, jnp.arange(B, dtype=jnp.int32), -1),
    scores=jnp.full((B, 3), jnp.nan),
    signals={"win_rates": wins},
  )
  batch = PairBatch(
    pairs,
    weights=jnp.where(valid, 1 / (B - 1), 0.0),
    token_weights=token_mean(pairs.mask[:, 0], valid),
    keys=jax.random.split(jax.random.key(seed), B),
    ref_log_probs=draw(),
    previous_log_probs=draw(),
  )
  return TokenScores(log_probs=draw(), log_sum_sq=draw()), batch


def loss_and_gradient(stage, scores, batch):
  apply = lambda log_probs: stage.apply(
    stage.init(), dataclasses.replace(scores, log_probs=log_probs), batch
  )
  (loss, state), gradient = jax.jit(jax.value_and_grad(apply, has_aux=True))(scores.log_probs)
  return loss, gradient, state


@pytest.mark.parametrize("spec", TABLE, ids=name)
def test_laws(spec):
  """jits; finite; wide; junk behind masks and in pairs that are none changes nothing; keeps state;
  moves with its scores; says what a pair is worth."""
  stage = build(stages, spec, field="loss")
  scores, batch = case()
  loss, gradient, state = loss_and_gradient(stage, scores, batch)
  assert loss.dtype == jnp.float32 and loss.shape == ()
  assert np.isfinite(loss) and np.isfinite(gradient).all()
  assert (np.asarray(gradient)[~np.asarray(batch.pairs.mask)] == 0).all()
  assert np.abs(gradient).max() > 0
  assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, stage.init())
  assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, stage.init())

  other = loss_and_gradient(stage, *case(junk=jnp.nan))
  jax.tree.map(np.testing.assert_array_equal, other, (loss, gradient, state))
  shapes = jax.eval_shape(lambda: loss_and_gradient(stage, *case(dtype=jnp.bfloat16)))
  narrow, its_gradient, _ = shapes
  assert narrow.dtype == jnp.float32 and its_gradient.dtype == jnp.bfloat16

  rewards = stage.rewards(scores, batch)
  assert rewards.shape == (B, 2) and np.isfinite(rewards).all()

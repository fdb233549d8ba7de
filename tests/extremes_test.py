"""Log-probs far apart: no loss and no gradient is nan or infinite, and float64 says the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import losses
from lcrl.losses.preference import stages as pairs
from lcrl.registry import build
from lcrl.types import Batch, PairBatch, Pairs, TokenScores
from tests.helpers.stages import TABLE
from tests.rollouts import random_rollouts

VALUES = np.array([-1e4, -89.0, -1.0, 0.0, 89.0, 200.0])
NEW, OLD = (x.reshape(-1) for x in np.meshgrid(VALUES, VALUES))  # every pair
MASK = np.arange(NEW.size + 1) < NEW.size  # and one token of nan behind the mask
SIGNS = {"good": 1.0, "bad": -1.0, "neither": 0.0}

TOKENS = {
  "clipped": losses.clipped_surrogate_loss,
  "dual": functools.partial(losses.clipped_surrogate_loss, dual_clip=3.0),
  "cap": functools.partial(losses.clipped_surrogate_loss, ratio_cap=4.0),
  "sequence": functools.partial(losses.clipped_surrogate_loss, ratio=losses.sequence_ratio),
  "branch": functools.partial(losses.clipped_surrogate_loss, ratio=losses.branch_ratio),
  "cispo": losses.cispo_loss,
  "sapo": losses.sapo_loss,
  "kl_cov": losses.kl_cov_loss,
  "k1": lambda x, y, a, m: losses.k1_kl(x, y, m),
  "k2": lambda x, y, a, m: losses.k2_kl(x, y, m),
  "k3": lambda x, y, a, m: losses.k3_kl(x, y, m),
  "abs": lambda x, y, a, m: losses.abs_kl(x, y, m),
  "importance": lambda x, y, a, m: losses.importance_ratio(x, y, m, log_limit=np.inf),
  "truncated": lambda x, y, a, m: losses.truncated_importance(x, y, m),
  "rejected": lambda x, y, a, m: losses.rejected_importance(x, y, m, per_sequence=True),
}


@functools.cache
def of_tokens(name, sign, dtype):
  """Losses and gradients; a row a pair of log-probs, its second token behind the mask."""
  with jax.enable_x64(dtype == np.float64):
    hide = lambda x: jnp.stack([jnp.asarray(x, dtype), jnp.full(x.shape, jnp.nan, dtype)], -1)
    mask = jnp.broadcast_to(jnp.array([True, False]), (NEW.size, 2))
    advantages = jnp.full(NEW.size, SIGNS[sign], dtype)
    run = lambda x: TOKENS[name](x, hide(OLD), advantages, mask)
    got = jax.jit(lambda x: (run(x), jax.grad(lambda x: run(x).sum())(x)))(hide(NEW))
    return [np.asarray(x) for x in got]


def agree(got, want):
  """Finite; and where float64 is well inside float32's range, as there."""
  assert np.isfinite(got).all()
  inside = np.abs(want) < 1e30
  np.testing.assert_allclose(got[inside], want[inside], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("name", TOKENS)
def test_token_losses(name, sign):
  (loss, grad), (wide, wide_grad) = (of_tokens(name, sign, t) for t in (np.float32, np.float64))
  agree(loss, wide)
  agree(grad, np.where(np.abs(wide) < 1e30, wide_grad, np.inf))
  assert not loss[:, 1].any()
  assert not grad[:, 1].any()


@pytest.mark.parametrize("name", ["clipped", "sequence", "branch", "dual", "cap"])
def test_nothing_to_gain_is_no_gradient(name):
  over = np.log(1.2) < NEW - OLD
  assert not of_tokens(name, "good", np.float32)[1][over].any()
  assert not of_tokens(name, "neither", np.float32)[1].any()
  under = np.log(0.8) > NEW - OLD
  assert not of_tokens(name, "bad", np.float32)[1][under].any()


@functools.cache
def extreme_batch():
  """Rollouts with all pairs of log-probs, and nan in all that is masked or does not train."""
  r = random_rollouts(prompts=4, group=4)
  keep = r.valid.at[0, 0].set(False)
  lay = lambda x: jnp.asarray(np.resize(x, r.mask.shape), jnp.float32)
  show = lambda x: jnp.where(r.mask & keep[..., None], lay(x), jnp.nan)
  fields = {"old_log_probs": show(OLD), "ref_log_probs": show(NEW[::-1])}
  forced = r.mask & (jnp.cumsum(r.mask, -1) == 1)
  signals = {"teacher_log_probs": show(NEW[::-1])}
  changed = {"sampler_log_probs": show(OLD[::-1]), "undrawn": forced, "signals": signals}
  r = r.__class__(**vars(r) | changed)
  advantages = jnp.resize(jnp.array([1.0, -1.0, 0.0]), keep.shape)
  batch = Batch(r, r.scores, keep, advantages, losses.token_mean(r.mask, keep), **fields)
  return batch, show(NEW)


@pytest.mark.parametrize("spec", [s for slot, s in TABLE if slot == "loss"], ids=lambda s: s["fn"])
def test_stages_of_policy_losses(spec):
  stage = build(losses.policy, spec, field="loss")
  batch, log_probs = extreme_batch()
  pay = lambda x: stage.apply((), TokenScores(x, -x, logits_at=2 * x), batch)[0]
  loss, grad = jax.jit(jax.value_and_grad(pay))(log_probs)
  assert np.isfinite(loss)
  assert np.isfinite(grad).all()
  assert not grad[~np.asarray(batch.rollouts.mask & batch.keep[..., None])].any()


def pair_stages():
  named = {name: getattr(pairs, name) for name in pairs.__all__}
  makers = [n for n, f in named.items() if str(f.__annotations__.get("return")) == "Stage"]
  return sorted(set(makers) - {"combined"})


@pytest.mark.parametrize("name", pair_stages())
def test_stages_of_preference_losses(name):
  stage, size = getattr(pairs, name)(), NEW.size
  mask = jnp.broadcast_to(jnp.array([True, True, False]), (size, 3, 3))
  ones = jnp.ones(size)
  rows = Pairs(
    tokens=jnp.zeros(mask.shape, jnp.int32),
    mask=mask,
    lengths=mask.sum(-1),
    valid=ones > 0,
    pair_ids=jnp.arange(size),
    scores=jnp.zeros((size, 3)),
    signals={"win_rates": jnp.ones((size, 2))},
  )
  side = lambda *x: jnp.stack([jnp.asarray(np.stack([x, x, x * np.nan], -1)) for x in x], 1)
  shown = lambda *x: side(*x).astype(jnp.float32)
  batch = PairBatch(
    rows,
    ones / size,
    mask[:, 0] / (2.0 * size),
    jax.random.split(jax.random.key(0), size),
    ref_log_probs=shown(OLD, NEW, OLD),
    previous_log_probs=shown(OLD, OLD, OLD),
  )
  pay = lambda x: stage.apply(stage.init(), TokenScores(x, log_sum_sq=-x), batch)[0]
  loss, grad = jax.jit(jax.value_and_grad(pay))(shown(NEW, OLD, NEW))
  assert np.isfinite(loss)
  assert np.isfinite(grad).all()
  assert not grad[:, :, 2].any()


LINKS = {
  "logistic": losses.logistic_link,
  "robust": losses.robust_link,
  "hinge": losses.hinge_link,
  "exo": losses.exo_link,
  "discopop": losses.discopop_link,
  "discopop, wide": functools.partial(losses.discopop_link, temperature=2.0),
  "forward_kl": losses.forward_kl_reward,
  "js": losses.js_reward,
  "power": losses.power_reward,
  "alpha": functools.partial(losses.alpha_divergence_reward, alpha=2.0),
  "odds": lambda z: losses.orpo_loss(z, jnp.flip(z)),
}


@pytest.mark.parametrize("name", LINKS)
def test_links_and_implied_rewards(name):
  found = []
  for dtype in (np.float32, np.float64):
    with jax.enable_x64(dtype == np.float64):
      z = jnp.asarray(np.concatenate([VALUES, -VALUES]), dtype)
      found.append((LINKS[name](z), jax.grad(lambda z: LINKS[name](z).sum())(z)))
  (value, grad), (wide, wide_grad) = jax.tree.map(np.asarray, found)
  agree(value, wide)
  agree(grad, np.where(np.abs(wide) < 1e30, wide_grad, np.inf))

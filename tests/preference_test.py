"""Preference losses: laws for all of them. The numbers are in golden/preference.json."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl.losses import preference as pref

BETA = 0.3


def prefix(lengths, width):
  return jnp.arange(width)[None] < jnp.asarray(lengths)[:, None]


def pairs(n=6, width=7):
  """Policy and reference log-probs of both sides, and masks of unequal lengths >= 1."""
  rng = np.random.default_rng(0)
  log_probs = [jnp.asarray(-rng.exponential(size=(n, width)), jnp.float32) for _ in range(4)]
  masks = [prefix(rng.integers(1, width + 1, n), width) for _ in range(2)]
  return (*log_probs, *masks)


def referenced(loss, weigh=pref.sum_weights):
  """loss(u, v) as a loss of tokens."""

  def of_tokens(chosen, rejected, ref_chosen, ref_rejected, chosen_mask, rejected_mask):
    u = pref.sequence_log_ratios(chosen, ref_chosen, weigh(chosen_mask, rejected_mask))
    v = pref.sequence_log_ratios(rejected, ref_rejected, weigh(rejected_mask, chosen_mask))
    return loss(u, v)

  return of_tokens


def reference_free(loss, weigh):
  def of_tokens(chosen, rejected, ref_chosen, ref_rejected, chosen_mask, rejected_mask):
    del ref_chosen, ref_rejected
    return loss(
      pref.sequence_log_probs(chosen, weigh(chosen_mask, rejected_mask)),
      pref.sequence_log_probs(rejected, weigh(rejected_mask, chosen_mask)),
    )

  return of_tokens


def r_dpo(chosen, rejected, ref_chosen, ref_rejected, chosen_mask, rejected_mask):
  lengths = chosen_mask.sum(-1), rejected_mask.sum(-1)
  loss = lambda u, v: pref.r_dpo_loss(u, v, *lengths, beta=BETA)
  return referenced(loss)(chosen, rejected, ref_chosen, ref_rejected, chosen_mask, rejected_mask)


def wpo(chosen, rejected, ref_chosen, ref_rejected, chosen_mask, rejected_mask):
  args = (chosen, rejected, ref_chosen, ref_rejected, chosen_mask, rejected_mask)
  return pref.wpo_weights(*args) * referenced(pref.dpo_loss)(*args)


LINKS = {
  "logistic": pref.logistic_link,
  "conservative": partial(pref.logistic_link, label_smoothing=0.2),
  "robust": pref.robust_link,
  "hinge": pref.hinge_link,
  "exo": pref.exo_link,
  "discopop": pref.discopop_link,
}
REFERENCED = {
  **{f"dpo_{name}": partial(pref.dpo_loss, beta=BETA, link=link) for name, link in LINKS.items()},
  "ipo": partial(pref.ipo_loss, tau=0.05),
  "dpop": partial(pref.dpop_loss, beta=BETA),
  "nca": partial(pref.nca_loss, beta=BETA),
  "bco": partial(pref.bco_loss, beta=BETA),
  "apo_zero": partial(pref.apo_zero_loss, beta=BETA),
  "apo_down": partial(pref.apo_down_loss, beta=BETA),
  "sppo_hard": partial(pref.sppo_hard_loss, beta=0.02),
  "sppo": lambda u, v: pref.sppo_loss(
    u, v, jnp.full_like(u, 0.9), jnp.full_like(u, 0.2), beta=0.02
  ),
  "aot": partial(pref.aot_loss, beta=BETA),
  "f_dpo": lambda u, v: pref.dpo_loss(pref.js_reward(u), pref.js_reward(v)),
  "alpha_dpo": lambda u, v: pref.dpo_loss(
    pref.alpha_divergence_reward(u, alpha=0.5), pref.alpha_divergence_reward(v, alpha=0.5)
  ),
}
REFERENCE_FREE = {
  "simpo": (pref.simpo_loss, pref.mean_weights),
  "simpo_hinge": (partial(pref.simpo_loss, link=pref.hinge_link), pref.mean_weights),
  "alphapo": (
    lambda c, r: pref.simpo_loss(pref.power_reward(c), pref.power_reward(r)),
    pref.mean_weights,
  ),
  "orpo": (pref.orpo_loss, pref.mean_weights),
  "cpo": (pref.cpo_loss, pref.sum_weights),
  "slic": (pref.slic_loss, pref.sum_weights),
}
TOKEN_LOSSES = {
  **{name: referenced(loss) for name, loss in REFERENCED.items()},
  **{name: reference_free(*parts) for name, parts in REFERENCE_FREE.items()},
  "ln_dpo": referenced(pref.dpo_loss, pref.mean_weights),
  "ld_dpo": referenced(pref.dpo_loss, partial(pref.desensitized_weights, alpha=0.3)),
  "common_length": referenced(pref.dpo_loss, pref.common_length_weights),
  "nll": lambda c, r, rc, rr, m, n: pref.nll_loss(c, pref.batch_mean_weights(m)),
  "r_dpo": r_dpo,
  "wpo": wpo,
}


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_padding_is_invisible_and_untouched(name):
  def run(args):
    policy, rest = args[:2], args[2:]
    total = lambda policy: (lambda x: (x.sum(), x))(TOKEN_LOSSES[name](*policy, *rest))
    return jax.grad(total, has_aux=True)(policy)

  args = pairs()
  masks = args[4:]
  hidden = [masks[0], masks[1], masks[0], masks[1]]
  dirty = [jnp.where(m, x, jnp.nan) for x, m in zip(args[:4], hidden, strict=True)]
  wide = [jnp.pad(x, ((0, 0), (3, 2)), constant_values=jnp.nan) for x in dirty]
  wide_masks = [jnp.pad(m, ((0, 0), (3, 2))) for m in masks]
  grads, losses = jax.jit(run)(args)
  wide_grads, wide_losses = jax.jit(run)((*wide, *wide_masks))
  assert losses.shape == (6,)
  np.testing.assert_allclose(wide_losses, losses, rtol=1e-5, atol=1e-6)
  assert any(np.abs(grad).max() > 0 for grad in grads)
  for grad, wide_grad, mask in zip(grads, wide_grads, masks, strict=True):
    np.testing.assert_allclose(wide_grad[:, 3:-2], grad, rtol=1e-4, atol=1e-6)
    assert (np.asarray(grad)[~np.asarray(mask)] == 0).all()
    assert (np.asarray(wide_grad)[:, :3] == 0).all()


@pytest.mark.parametrize("name", TOKEN_LOSSES)
def test_an_empty_side_and_extreme_pairs_stay_finite(name):
  args = pairs()
  scale = jnp.array([0.0, 1e3, 1e-6, 50.0, 1.0, 1.0])[:, None]
  masks = args[4] & (jnp.arange(6) != 4)[:, None], args[5] & (jnp.arange(6) != 5)[:, None]
  total = lambda chosen, *rest: TOKEN_LOSSES[name](chosen, *rest).sum()
  grads = jax.jit(jax.grad(total, argnums=(0, 1)))(*(scale * x for x in args[:4]), *masks)
  assert all(np.isfinite(grad).all() for grad in grads)


def test_rows_sharded_explicitly_give_the_same_losses():
  mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,))
  names = TOKEN_LOSSES.keys() - {"aot"}  # sorts the batch

  @jax.jit
  def losses(args):
    keys = jax.random.split(jax.random.key(0), 6)
    sampled = partial(pref.sampled_weights, keys)
    return {name: TOKEN_LOSSES[name](*args) for name in names} | {
      "sampo": referenced(pref.dpo_loss, sampled)(*args)
    }

  args = pairs()
  expected = losses(args)
  with jax.set_mesh(mesh):
    got = losses(jax.device_put(args, NamedSharding(mesh, P("data"))))
  for name, loss in got.items():
    assert loss.sharding.spec == P("data"), name
    np.testing.assert_allclose(loss, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


FALLING = REFERENCED.keys() - {"apo_down", "aot", "dpo_discopop"}


@pytest.mark.parametrize("name", sorted(FALLING) + sorted(REFERENCE_FREE))
def test_at_the_reference_chosen_rises_and_rejected_falls(name):
  """Below every link's kink: the gradient's signs say what the method is for."""
  loss = REFERENCED[name] if name in REFERENCED else REFERENCE_FREE[name][0]
  start = (jnp.array([0.0]), jnp.array([0.0])) if name in REFERENCED else (jnp.array([-1.0]),) * 2
  chosen, rejected = jax.grad(lambda u, v: loss(u, v).sum(), argnums=(0, 1))(*start)
  assert chosen[0] < 0 < rejected[0]


@pytest.mark.parametrize("name", LINKS)
def test_links_fall_towards_a_right_margin(name):
  z = np.linspace(-4.0, 0.5, 46)
  slopes = np.diff(LINKS[name](z))
  if name == "discopop":  # its known hump
    slopes = slopes[(z[1:] < -0.15) | (z[:-1] > 0.15)]
  assert (slopes < 0).all()


def test_swapping_the_sides_changes_logistic_losses_by_the_margin():
  u, v = jnp.array([0.4, -2.0, 30.0]), jnp.array([-1.0, 0.5, 0.0])
  there, back = pref.dpo_loss(u, v, beta=BETA), pref.dpo_loss(v, u, beta=BETA)
  np.testing.assert_allclose(back - there, BETA * (u - v), rtol=1e-5)
  even = partial(pref.logistic_link, label_smoothing=0.5)  # half the labels wrong: no side is right
  np.testing.assert_allclose(
    pref.dpo_loss(u, v, link=even), pref.dpo_loss(v, u, link=even), rtol=1e-6
  )


def test_robust_link_averages_over_flipped_labels():
  """(1 - eps) robust(z) + eps robust(-z) is the loss of clean labels: what makes it unbiased."""
  z, eps = jnp.linspace(-3.0, 3.0, 7), 0.2
  robust = partial(pref.robust_link, label_smoothing=eps)
  np.testing.assert_allclose(
    (1 - eps) * robust(z) + eps * robust(-z), pref.logistic_link(z), rtol=1e-5
  )


def test_r_dpo_trains_long_chosen_answers_less():
  grad = jax.grad(lambda u, length: pref.r_dpo_loss(u, u * 0, length, 10 + u * 0))
  pull = [-float(grad(jnp.array(0.0), jnp.array(length))) for length in (1.0, 10.0, 100.0)]
  assert pull[0] > pull[1] > pull[2] > 0
  np.testing.assert_allclose(pull[1], 0.05, rtol=1e-6)  # equal lengths: DPO's beta / 2


def test_the_reference_and_logs_have_no_gradient():
  x, ones = jnp.array([-1.0, -2.0]), jnp.ones(2)
  for gradient in (
    jax.grad(lambda ref: pref.sequence_log_ratios(x, ref, ones))(x),
    jax.grad(lambda ref: pref.sequence_log_ratios(x, ref, ones, ones))(x),
    jax.grad(lambda y: pref.implicit_reward(y, beta=0.1).sum())(x),
    jax.grad(lambda y: pref.cdr_reward(y, x, ones > 0))(x),
    jax.grad(pref.kto_baseline)(-x),
    jax.grad(lambda y: pref.wpo_weights(y, y, y, y, ones > 0, ones > 0))(x),
    jax.grad(lambda y: pref.dynamic_beta(y, ones > 0, pref.Moments(y[0] * 0, y[0] * 0)))(x),
  ):
    assert not np.any(gradient)


def test_limits_between_methods():
  x, y = jnp.array([-0.3, -2.0]), jnp.array([-0.5, -0.1])
  np.testing.assert_allclose(pref.power_reward(x, alpha=0.0), x)
  np.testing.assert_allclose(pref.power_reward(x, alpha=1e-4), x, rtol=1e-3)
  np.testing.assert_allclose(pref.alpha_divergence_reward(x, alpha=1.0), x)
  np.testing.assert_allclose(
    pref.alpha_divergence_reward(x, alpha=0.0), pref.forward_kl_reward(x), rtol=1e-6
  )
  np.testing.assert_allclose(pref.inpo_reference(x, y, tau=0.2, eta=0.2), x)
  np.testing.assert_allclose(pref.inpo_reference(x, y, tau=0.1, eta=0.2), (x + y) / 2)
  hard = pref.sppo_hard_loss(x, y, beta=0.1)
  np.testing.assert_allclose(hard, 2 * pref.sppo_loss(x, y, x * 0 + 1, y * 0, beta=0.1))


def test_orpo_of_certain_answers():
  """exp(a) = 1 has infinite odds; a = -1e-3 has log odds log(1e3) to three digits."""
  loss = lambda a: pref.orpo_loss(jnp.array([a]), jnp.array([-jnp.log(2.0)]), weight=1.0)[0]
  assert np.isfinite(loss(0.0))
  np.testing.assert_allclose(loss(-1e-3), 1e-3, rtol=2e-3)  # -log sigmoid(log 1e3 - 0)
  assert jax.grad(loss)(-0.7) < 0


def test_aot_sees_distributions_not_pairs():
  values, baselines = jnp.array([3.0, 1.0, 2.0]), jnp.array([0.0, 2.0, 5.0])
  loss = lambda v: pref.aot_loss(v, baselines).sum()
  order = jnp.array([2, 0, 1])
  np.testing.assert_allclose(loss(values), loss(values[order]), rtol=1e-6)
  np.testing.assert_allclose(
    jax.grad(loss)(values)[order], jax.grad(loss)(values[order]), rtol=1e-6
  )


def test_kto_pushes_good_up_and_bad_down():
  good = jnp.array([True, False])
  loss = lambda r: pref.kto_loss(r, 0.5, good, desirable_weight=2.0).sum()
  gradient = jax.grad(loss)(jnp.array([0.5, 0.5]))
  np.testing.assert_allclose(gradient, [-2 * 0.1 / 4, 0.1 / 4], rtol=1e-6)
  assert pref.kto_baseline(jnp.array([-3.0, 1.0])) == 0
  assert pref.kto_baseline(jnp.array([3.0, 1.0])) == 2


def test_combined_loss_is_a_weighted_sum():
  dpo, nll = jnp.array([1.0, 2.0]), jnp.array([10.0, 0.0])
  np.testing.assert_allclose(pref.combined_loss((1.0, dpo), (0.5, nll)), [6.0, 2.0])


one = jnp.ones(1)


@pytest.mark.parametrize(
  "call, message",
  [
    (lambda: pref.dpo_loss(one, jnp.ones(2)), "chosen_log_ratios and rejected_log_ratios"),
    (lambda: pref.dpo_loss(one, one, beta=0.0), "beta.*0.0"),
    (lambda: pref.simpo_loss(one, one, beta=-1.0), "beta.*-1.0"),
    (lambda: pref.ipo_loss(one, one, tau=0), "tau.*0"),
    (lambda: pref.kto_loss(one, 0.0, jnp.array([True, False])), "desirable"),
    (lambda: pref.sequence_log_probs(jnp.ones((2, 3)), one), "log_probs and weights"),
    (lambda: pref.sequence_log_ratios(one, jnp.ones(2), one), "ref_log_probs"),
    (lambda: pref.desensitized_weights(one > 0, one > 0, alpha=1.5), "alpha.*1.5"),
    (lambda: pref.sampled_weights(jax.random.key(0), prefix([1], 2), prefix([1], 2)), "keys"),
    (lambda: pref.logistic_link(one, label_smoothing=0.6), "label_smoothing.*0.6"),
    (lambda: pref.robust_link(one, label_smoothing=0.5), "label_smoothing.*0.5"),
    (lambda: pref.exo_link(one, label_smoothing=0.0), "label_smoothing.*0.0"),
    (lambda: pref.inpo_reference(one, one, tau=0.2, eta=0.1), "tau 0.2"),
    (lambda: pref.typical_pairs(jax.random.key(0), one, None, drop=1.0), "drop.*1.0"),
    (lambda: pref.combined_loss(), "at least one"),
    (lambda: pref.combined_loss((1.0, one), (1.0, jnp.ones(2))), "loss 0 and loss 1"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()

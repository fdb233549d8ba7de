"""Laws of every preference stage, and each against the goldens of the loss it stands for."""

import dataclasses
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.losses import preference as pref
from lcrl.losses.preference import stages
from lcrl.losses.weights import sequence_mean, sequence_sum, token_mean
from lcrl.registry import build
from lcrl.training.scorer import value_and_grad
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
  """(scores, batch) of B pairs of three sides; the last is none. Junk stands behind masks."""
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
  assert loss.dtype == jnp.float32
  assert loss.shape == ()
  assert np.isfinite(loss)
  assert np.isfinite(gradient).all()
  assert (np.asarray(gradient)[~np.asarray(batch.pairs.mask)] == 0).all()
  assert np.abs(gradient).max() > 0
  assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, stage.init())
  assert jax.tree.map(jnp.result_type, state) == jax.tree.map(jnp.result_type, stage.init())

  other = loss_and_gradient(stage, *case(junk=jnp.nan))
  jax.tree.map(np.testing.assert_array_equal, other, (loss, gradient, state))
  shapes = jax.eval_shape(lambda: loss_and_gradient(stage, *case(dtype=jnp.bfloat16)))
  narrow, its_gradient, _ = shapes
  assert narrow.dtype == jnp.float32
  assert its_gradient.dtype == jnp.bfloat16

  rewards = stage.rewards(scores, batch)
  assert rewards.shape == (B, 2)
  assert np.isfinite(rewards).all()


COUPLED = [spec for spec in TABLE if spec["fn"] in ("aot", "bco", "beta_dpo", "kto", "lmpo")]
ADDITIVE = [dict(fn=f) for f in ("rpo", "sampo", "wpo")]


@pytest.mark.parametrize("spec", [*COUPLED, *ADDITIVE], ids=name)
def test_pieces_change_no_gradient(spec):
  stage = build(stages, spec, field="loss")
  scores, batch = case()
  params = jnp.linspace(0.5, 1.5, T)
  # what a policy of one number a position would say of the rows; `lengths` carries the row's number
  index = jnp.broadcast_to(jnp.arange(B, dtype=jnp.int32)[:, None], (B, 3))
  batch = dataclasses.replace(batch, pairs=dataclasses.replace(batch.pairs, lengths=index))

  def score(params, pairs):
    rows = jax.tree.map(lambda x: x[pairs.lengths[:, 0]], scores)
    return dataclasses.replace(rows, log_probs=rows.log_probs * params[None, None])

  whole, *parts = (
    jax.jit(functools.partial(value_and_grad, stage, stage.init(), score, micro_batches=n))(
      params, batch
    )
    for n in (1, 3)
  )
  for part in parts:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), part, whole)


def smoothed(p, fn="logistic"):
  return dict(fn=fn, label_smoothing=p["label_smoothing"])


def linked(link):
  return lambda p: dict(fn="dpo", beta=p["beta"], link=link(p))


def of(fn, **renamed):
  return lambda p: dict(fn=fn, **{ours: p[theirs] for ours, theirs in renamed.items()})


BETA = dict(beta="beta")
GOLDENS = {  # of the golden file -> the config of the stage, of the golden's parameters
  "dpo": of("dpo", **BETA),
  "dpo_conservative": linked(smoothed),
  "dpo_robust": linked(lambda p: smoothed(p, "robust")),
  "hinge": linked(lambda p: dict(fn="hinge")),
  "exo_pair": linked(lambda p: smoothed(p, "exo")),
  "discopop": linked(lambda p: dict(fn="discopop", temperature=p["tau"])),
  "ipo": of("ipo", tau="tau"),
  "ipo_sum": lambda p: dict(fn="ipo", tau=p["tau"], tokens=dict(fn="sums")),
  "ln_dpo": of("ln_dpo", **BETA),
  "nca_pair": of("nca", **BETA),
  "apo_zero": of("apo_zero", **BETA),
  "apo_down": of("apo_down", **BETA),
  "dpop": of("dpop", penalty="dpop_lambda", **BETA),
  "sppo": of("sppo", **BETA),
  "sppo_hard": of("sppo_hard", **BETA),
  "r_dpo": of("r_dpo", alpha="alpha", **BETA),
  "ld_dpo": of("ld_dpo", alpha="ld_alpha", **BETA),
  "ld_dpo_policy_only": lambda p: of("ld_dpo", alpha="ld_alpha", **BETA)(p) | {"policy_only": True},
  "dpo_nll": of("rpo", likelihood="nll_coef", **BETA),
  "irpo": of("rpo", likelihood="nll_coef", **BETA),
  "longpo": of("longpo", weight="dpo_lambda", **BETA),
  "aot": lambda p: of("aot", paired="paired", **BETA)(p) | {"link": smoothed(p)},
  "aot_unpaired": lambda p: of("aot", paired="paired", **BETA)(p) | {"link": smoothed(p)},
  "wpo": of("wpo", most="clamp_max", **BETA),
  "wpo_unclamped": of("wpo", most="clamp_max", **BETA),
  "beta_dpo": of("beta_dpo", beta="beta0", scale="a", drop="rho", decay="ema", least="beta_min"),
  "inpo": of("inpo", tau="tau", eta="eta"),
  "cpo_simpo": lambda p: dict(
    fn="cpo_simpo", beta=p["beta"], margin=p["gamma"] / p["beta"], likelihood=p["cpo_alpha"]
  ),
  "alphapo": lambda p: dict(
    fn="alphapo", alpha=p["alpha"], beta=p["beta"], margin=p["gamma"] / p["beta"]
  ),
  "orpo": of("orpo", weight="lambda"),
  "slic_hf": of("slic", margin="delta", likelihood="lambda"),
  "lmpo": of("lmpo", margin="gamma_beta_ratio", weight="lambda", power="k", decay="ema", **BETA),
}
WEIGHTS = {"irpo": sequence_mean, "longpo": sequence_mean, "slic_hf": sequence_sum}
STATES = {"beta_dpo": ("gap_mean", "gap_std"), "lmpo": ("margin_mean", "margin_std")}


@functools.cache
def goldens():
  return json.loads((pathlib.Path(__file__).parent / "golden" / "preference.json").read_text())


@pytest.mark.parametrize("key", GOLDENS)
def test_goldens(key):
  """The first case of each loss: value and gradient as the reference code has them."""
  case = goldens()[key]["cases"][0]
  x = {name: jnp.asarray(value) for name, value in case["inputs"].items()}
  sides = lambda chosen, rejected: jnp.stack([x[chosen], x[rejected]], axis=1)
  given = lambda prefix: (
    sides(f"{prefix}_chosen_logps", f"{prefix}_rejected_logps")
    if f"{prefix}_chosen_logps" in x
    else None
  )
  mask = sides("chosen_mask", "rejected_mask") > 0
  valid = jnp.ones(len(mask), bool)
  wins = sides("p_win_chosen", "p_win_rejected") if "p_win_chosen" in x else jnp.zeros(())
  pairs = Pairs(mask, mask, mask.sum(-1), valid, jnp.arange(len(mask)), mask, {"win_rates": wins})
  batch = PairBatch(
    pairs,
    weights=valid / len(valid),
    token_weights=WEIGHTS.get(key, token_mean)(mask[:, 0], valid),
    keys=jax.random.split(jax.random.key(0), len(valid)),
    ref_log_probs=given("ref") if given("short_ref") is None else given("short_ref"),
    previous_log_probs=given("prev"),
  )
  square = "log_sum_sq_probs_chosen", "log_sum_sq_probs_rejected"
  log_sum_sq = sides(*square) if square[0] in x else None
  stage = build(stages, GOLDENS[key](case["params"]), field="loss")
  state = pref.Moments(*(x[name][0] for name in STATES[key])) if key in STATES else stage.init()
  loss = lambda log_probs: stage.apply(state, TokenScores(log_probs, log_sum_sq=log_sum_sq), batch)
  (value, _), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    sides("chosen_logps", "rejected_logps")
  )
  want = case["expected"]
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  close(value, want["mean_loss"])
  close(gradient[:, 0], want["grad_chosen_logps"])
  close(gradient[:, 1], want["grad_rejected_logps"])

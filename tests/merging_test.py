"""Laws of merging in weight space, TIES on numbers worked by hand, and the measuring pass."""

import itertools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from lcrl import policies
from lcrl.merging import activations, arithmetic, calibration, low_rank, selective, signs, thinkedit
from lcrl.policies import lora
from lcrl.policies.config import Rope
from lcrl.policies.modules import Norm
from lcrl.tasks import chains

RNG = np.random.default_rng(0)
BASE, A, B, C = RNG.normal(size=(4, 5, 6))
ALL = [np.ones(BASE.shape, bool)] * 3

MERGES = {  # of models, each a function of (base, models)
  "linear": lambda base, models: arithmetic.linear_merge(models),
  "mean_change": lambda base, models: arithmetic.task_arithmetic_merge(
    base, models, normalize=True
  ),
  "ties": lambda base, models: signs.ties_merge(base, models, density=1),
  "trimmed_ties": lambda base, models: signs.trimmed_ties_merge(base, models, rate=0),
  "dare_ties": lambda base, models: signs.dare_merge(
    base, models, ALL[: len(models)], drop=0, signs=True
  ),
  "sce": lambda base, models: signs.sce_merge(base, models),
  "lore": lambda base, models: low_rank.lore_merge(models, mu=0.1),
  "low_rank": lambda base, models: low_rank.low_rank_merge(
    base, models, rank=5, scale=1 / len(models)
  ),
}
ORDERED = {  # further settings in which the order of the models does not matter
  **MERGES,
  "task_arithmetic": lambda base, models: arithmetic.task_arithmetic_merge(base, models),
  "ties_half": lambda base, models: signs.ties_merge(base, models, density=0.5),
  "sce_half": lambda base, models: signs.sce_merge(base, models, topk=0.5),
  "trimmed_half": lambda base, models: signs.trimmed_ties_merge(base, models, rate=0.5),
}


@pytest.mark.parametrize("name", MERGES)
def test_a_model_merged_with_itself_is_itself(name):
  for models in ([A], [A, A, A], [BASE, BASE]):
    np.testing.assert_allclose(MERGES[name](BASE, models), models[0], atol=1e-9)


@pytest.mark.parametrize("name", ORDERED)
def test_the_order_of_the_models_does_not_matter(name):
  merge = ORDERED[name]
  first = merge(BASE, [A, B, C])
  assert not np.allclose(first, A)
  np.testing.assert_allclose(merge(BASE, [C, A, B]), first, atol=1e-12)


@pytest.mark.parametrize(
  "merge",
  [
    lambda w: arithmetic.linear_merge([A, B], weights=w),
    lambda w: arithmetic.task_arithmetic_merge(BASE, [A, B], weights=w),
    lambda w: signs.ties_merge(BASE, [A, B], weights=w, density=1),
    lambda w: signs.dare_merge(BASE, [A, B], ALL[:2], weights=w, drop=0),
    lambda w: arithmetic.slerp_merge(A, B, strength=w[1]),
    lambda w: arithmetic.strength_merge(A, B - A, strength=w[1]),
  ],
)
def test_the_first_of_weights_1_and_0(merge):
  np.testing.assert_allclose(merge([1, 0]), A, atol=1e-12)
  np.testing.assert_allclose(merge([0, 1]), B, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
def test_arithmetic_is_in_float32_and_reads_arrays_of_jax(dtype):
  models = [x.astype(dtype) for x in (A, B)]
  found = signs.ties_merge(BASE.astype(dtype), models)
  assert found.dtype == np.float32
  of_jax = signs.ties_merge(jnp.asarray(BASE.astype(dtype)), [jnp.asarray(x) for x in models])
  np.testing.assert_array_equal(of_jax, found)


def test_ties_on_numbers_worked_by_hand():
  base = np.array([10.0, 10, 10, 10, 10, 10])
  a = base + np.array([4, -3, 1, 5, 0, 2])  # half: 5, 4, -3
  b = base + np.array([2, 6, -4, 1, 0, -5])  # half: 6, -5, -4
  # kept a: 4 -3  0 5 0  0
  # kept b: 0  6 -4 0 0 -5, with a weight of 3: 18 -12 -15
  # sums:   4 15 -12 5 0 -15; b outvotes a in the second
  found = signs.ties_merge(base, [a, b], weights=[1, 3], density=0.5, normalize=False)
  np.testing.assert_array_equal(found - base, [4, 18, -12, 5, 0, -15])
  found = signs.ties_merge(base, [a, b], weights=[1, 3], density=0.5, scale=0.5)
  np.testing.assert_array_equal(found - base, [2, 3, -2, 2.5, 0, -2.5])


def test_equal_magnitudes_keep_the_count():
  for values in (np.ones(7), np.array([1.0, -1, 2, 1, -1, 1])):
    host = selective.largest_entries(values, count=3)
    np.testing.assert_array_equal(host, selective.largest_entries(jnp.array(values), count=3))
    assert host.sum() == 3
  assert signs.keep_largest(np.ones(4), density=0.1).sum() == 1  # at least one
  assert signs.keep_largest(np.ones(4), density=0).sum() == 0


def test_dare_is_right_on_average():
  masks = np.random.default_rng(1).random((4000, *A.shape)) >= 0.75
  found = [signs.dare_merge(BASE, [A], [mask], drop=0.75) for mask in masks]
  np.testing.assert_allclose(np.mean(found, 0), A, atol=5 * np.abs(A - BASE).max() * 3**0.5 / 63)


def test_slerp_keeps_the_norm_and_the_halves_are_symmetric():
  first, second = A / np.linalg.norm(A), B / np.linalg.norm(B)
  for t in (0.2, 0.5, 0.9):
    found = arithmetic.slerp_merge(first, second, strength=t)
    assert np.linalg.norm(found) == pytest.approx(1)
    back = arithmetic.slerp_merge(second, first, strength=1 - t)
    np.testing.assert_allclose(found, back)
  np.testing.assert_allclose(arithmetic.slerp_merge(A, -A, strength=0.25), A / 2)


@pytest.mark.parametrize("shape", [(6, 30), (30, 6), (5, 5)])
def test_a_fast_decomposition_is_the_exact_one(shape):
  """Of a matrix whose singular values span 4 decades, one of them 0."""
  random = np.random.default_rng(0)
  left, _, right = np.linalg.svd(random.normal(size=shape), full_matrices=False)
  sizes = np.array([10.0, 3.0, 1.0, 1e-3, 0.0, 0.0])[: min(shape)]
  x = ((left * sizes) @ right).astype(np.float32)
  want = (left * np.maximum(sizes - 0.5, 0)) @ right
  np.testing.assert_allclose(low_rank._shrunk(x, 0.5), want, atol=3e-6)
  found, share = low_rank.truncated(x, rank=2)
  np.testing.assert_allclose(found, (left[:, :2] * sizes[:2]) @ right[:2], atol=3e-6)
  assert share == pytest.approx(109 / np.square(sizes).sum(), rel=1e-6)
  assert found.dtype == np.float32


def test_lore_falls_with_every_sweep_and_a_high_price_leaves_the_mean():
  models = [A, B, C]

  def objective(found, mu):
    errors = np.sum((found.base + found.changes - np.stack(models)) ** 2)
    return errors + mu * sum(np.linalg.norm(d, "nuc") for d in found.changes)

  values = [objective(low_rank.lore(models, mu=1.0, iterations=n), 1.0) for n in (1, 2, 5, 20)]
  assert values == sorted(values, reverse=True)
  assert values[0] > values[-1]
  found = low_rank.lore(models, mu=100.0)
  assert not found.changes.any()
  np.testing.assert_allclose(found.base, np.mean(models, 0))


def test_aim_spares_the_active_channels():
  active = np.array([0, 1, 2, 4, 4, 0.5])
  found = activations.activation_informed_merge(BASE, A, active, omega=0.4)
  shares = ((found - BASE) / (A - BASE)).mean(0)
  np.testing.assert_allclose(shares, [1, 0.85, 0.7, 0.4, 0.4, 0.925])


def test_what_cannot_be_merged_is_named():
  refused = [
    (lambda: arithmetic.linear_merge([A, A[:2]]), r"share a shape, got .*\(2, 6\)"),
    (lambda: arithmetic.linear_merge([]), "models is empty"),
    (lambda: arithmetic.linear_merge([A, B], weights=[1, -1]), "weights sum to 0"),
    (lambda: arithmetic.linear_merge([A, B], weights=[1, 2, 3]), "each of 2 models"),
    (lambda: arithmetic.linear_merge([A, B], weights=np.nan), "weights must be finite"),
    (lambda: arithmetic.task_arithmetic_merge(A, [B], scale=np.inf), "scale must be a finite"),
    (lambda: arithmetic.slerp_merge(A, B, strength=np.nan), "strength must be a finite"),
    (lambda: signs.ties_merge(A, [B], density=1.5), r"density must be in \[0, 1\], got 1.5"),
    (lambda: signs.trimmed_ties_merge(A, [B], rate=-1), r"rate must be in \[0, 1\]"),
    (lambda: signs.dare_merge(A, [B], ALL[:1], drop=1), "drop must be at least 0 and below 1"),
    (lambda: signs.dare_merge(A, [B], [ALL[0][:2]], drop=0), r"keep must have \(5, 6\)"),
    (lambda: signs.dare_merge(A, [B], [], drop=0), r"keep must have \(5, 6\)"),
    (lambda: signs.sce_change([]), "models is empty"),
    (lambda: signs.sce_merge(A, [B], topk=2), "topk must be in"),
    (lambda: low_rank.truncated(A[0], rank=1), r"shape \(6,\)"),
    (lambda: low_rank.truncated(A, rank=-1), "rank must be at least 0"),
    (lambda: low_rank.lore([A], mu=-1), "mu must be at least 0"),
    (lambda: activations.activation_informed_merge(A, B, A[0]), "at least 0"),
    (lambda: activations.activation_informed_merge(A, B, A[:, 0]), r"must be \(6,\)"),
    (lambda: thinkedit.top_heads(A, count=31), "the 30 heads, got 31"),
    (lambda: thinkedit.without_direction(A, A[:, 0] * 0, heads=[0], head_dim=2), "not 0"),
    (lambda: thinkedit.without_direction(A, A[:, 0], heads=[3], head_dim=2), "below 3, got 3"),
    (lambda: lora.allora_scale(A, eta=0), "eta must be above 0"),
    (lambda: chains.working("+ + 1 2 + 3 4", per_step=1), "between two sums"),
    (lambda: chains.working("+ 1", per_step=1), "no sum in prefix form"),
    (lambda: chains.working("1 2", per_step=1), "no sum in prefix form"),
    (lambda: chains.working("+ 1 x", per_step=1), "got 'x'"),
  ]
  for merge, message in refused:
    with pytest.raises(ValueError, match=message):
      merge()


def test_every_step_size_works_out_the_same_answer():
  rng = np.random.default_rng(2)
  for operators in (1, 5, 12):
    text = chains.question(rng, operators=operators)
    for per_step in (1, 2, 5, 12):
      steps = chains.working(text, per_step=per_step)
      assert len(steps) == -(-operators // per_step)
      assert steps[-1].after == str(chains.value(text))
      assert all(one.after == two.before for one, two in itertools.pairwise(steps))


@pytest.mark.parametrize("norms", ["pre", "post", "sandwich"])
def test_layers_are_those_of_the_forward_pass(norms):
  """The last layer's activations lead to the policy's own hidden states."""
  ropes = (Rope(), Rope(50.0))
  config = policies.tiny(32, qk_norm=True, windows=(3, None), ropes=ropes, norms=norms)
  policy = policies.make(config)
  params = policy.init(jax.random.key(0))
  tokens = list(range(9))
  *_, last = calibration.layers(policy, params, tokens)
  own = jax.tree.map(lambda x: x[-1], params["layers"])
  norm = lambda own, y: Norm(config.norm_eps).apply({"params": own}, y)
  y = last.mlp_inner @ own["down"]["kernel"]
  y = last.residual + (y if norms == "pre" else norm(own["mlp_post_norm"], y))
  y = norm(params["norm"], y)
  np.testing.assert_allclose(y, policy.hidden(params, jnp.array(tokens)), atol=1e-5)
  gate = last.mlp_input @ own["gate"]["kernel"]
  inner = jax.nn.silu(gate) * (last.mlp_input @ own["up"]["kernel"])
  np.testing.assert_allclose(inner, last.mlp_inner, atol=1e-5)
  found = calibration.channel_statistics(policy, params, [tokens, tokens[:4]])
  assert len(found) == 7 * config.layers
  short = list(calibration.layers(policy, params, tokens[:4]))[1].values
  both = np.concatenate([last.values, short])
  wanted = np.abs(both).mean(0)
  np.testing.assert_allclose(found["model.layers.1.self_attn.o_proj.weight"], wanted, rtol=1e-5)


def test_allora_slows_the_outputs_that_moved():
  b = jnp.zeros((1, 2, 3)).at[:, :, 1].set(6.0)
  scaled = lora.allora_gradients(
    {"query": {"a": jnp.ones((1, 4, 2)), "b": b}},
    {"query": {"a": jnp.ones((1, 4, 2)), "b": jnp.ones((1, 2, 3))}},
    eta=3.0,
  )
  np.testing.assert_allclose(scaled["query"]["a"], 1)
  slow = (72**0.5 + 1 / 9) ** -0.5
  np.testing.assert_allclose(scaled["query"]["b"][0], [[3, slow, 3]] * 2, rtol=1e-6)


def test_thinking_is_read_where_it_is_predicted_and_head_by_head():
  policy = policies.make(policies.tiny(32))
  params = policy.init(jax.random.key(1))
  prompt, thoughts = [1, 2, 3], ([7, 8], [4, 5, 6, 7, 8, 9], [9, 8, 7])  # the third is between
  rows = [calibration.Example(prompt, thought, []) for thought in thoughts]
  rows.append(calibration.Example(prompt, None, []))
  found = calibration.thinking_statistics(policy, params, rows, above=3, below=3)
  for i in range(policy.config.layers):
    short, long = (
      list(calibration.layers(policy, params, prompt + thought))[i] for thought in thoughts[:2]
    )
    direction = long.residual[2:8].mean(0) - short.residual[2:4].mean(0)  # token 8 predicts more
    np.testing.assert_allclose(found["directions"][i], direction, atol=1e-5)
    for head in range(4):
      alone = short.values.at[:, : 16 * head].set(0).at[:, 16 * (head + 1) :].set(0)
      written = (alone @ params["layers"]["out"]["kernel"][i])[2:4].mean(0)
      score = written @ -direction / np.linalg.norm(direction)
      assert found["scores"][i, head] == pytest.approx(float(score), abs=1e-5)

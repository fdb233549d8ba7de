"""The decoder: decoding equals teacher forcing; packing, padding and remat are invisible."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.policies.attention import BACKENDS, attention, segment_spans
from lcrl.policies.block import gated
from lcrl.policies.config import NO_ROPE, Rope
from tests.helpers.gpt_oss import OWN

VARIANTS = {
  "llama": {},
  "mixed": {"qkv_bias": True, "windows": (None, 3)},
  "windows": {"qk_norm": True, "head_dim": 16, "windows": (3, 3)},
  "soft-caps": {"attention_softcap": 1.0, "logit_softcap": 2.0, "tied": False},
  "other": {"activation": "gelu_tanh", "query_scale": 0.7, "qk_norm": True},
  "gemma": {"norms": "sandwich", "norm_offset": 1.0, "embed_scale": 5.0, "qk_norm": True}
  | {"windows": (3, None), "ropes": (Rope(), Rope(30.0))},
  "olmo": {"norms": "post", "qk_norm": True, "qk_norm_over": "projection"},
  "experts": {"experts": 5, "experts_per_token": 2, "qk_norm": True},
  "gates as they are": {"experts": 4, "experts_per_token": 3, "normalize_gates": False}
  | {"windows": (3, None), "unroll": True},
  "gpt-oss": {**OWN, "windows": (3, None)},
  "without rope": {"ropes": (Rope(), NO_ROPE), "unroll": True},
}


@functools.cache
def _make(variant="llama", **overrides):
  sizes = {"hidden_size": 32, "head_dim": 8, "mlp_size": 48}
  policy = policies.make(policies.tiny(23, **(sizes | VARIANTS[variant] | overrides)))
  rng = np.random.default_rng(0)  # no init: biases and scales should count
  noise = lambda x: jnp.asarray(rng.normal(0.0, 0.3, x.shape), x.dtype)
  return policy, jax.tree.map(noise, jax.eval_shape(policy.init, jax.random.key(0)))


def _tokens(*shape):
  return jnp.asarray(np.random.default_rng(1).integers(0, 23, shape))


@pytest.mark.parametrize("name", VARIANTS)
def test_decoding_equals_teacher_forcing(name):
  policy, params = _make(name)
  tokens, lengths = _tokens(3, 12), jnp.array([2, 5, 4])
  want = policy.hidden(params, tokens)
  small = policy.unstack(params)
  garbage = jnp.where(jnp.arange(5)[None] < lengths[:, None], tokens[:, :5], 7)
  hidden, cache = policy.prefill(small, garbage, lengths, policy.init_cache(3, 16))
  rows = jnp.arange(3)
  for step in range(7):
    np.testing.assert_allclose(hidden, want[rows, lengths + step - 1], atol=2e-5)
    hidden, cache = policy.decode(small, tokens[rows, lengths + step], lengths + step, cache)


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_rows_equal_separate_rows(name):
  policy, params = _make(name)
  tokens = _tokens(2, 7)
  packed, segments = tokens.reshape(-1), jnp.repeat(jnp.array([1, 2]), 7)
  want = policy.apply(params, tokens).reshape(14, -1)
  restarted = policy.apply(params, packed, jnp.tile(jnp.arange(7), 2), segments)
  np.testing.assert_allclose(restarted, want, atol=3e-5)
  np.testing.assert_allclose(policy.apply(params, packed, None, segments), want, atol=3e-5)
  if name == "llama":
    assert np.abs(policy.apply(params, packed)[7:] - want[7:]).max() > 1e-2


def test_leading_axes_are_free_and_padding_is_invisible():
  policy, params = _make()
  tokens = _tokens(2, 3, 9)
  got = policy.apply(params, tokens)
  np.testing.assert_allclose(got[1, 2], policy.apply(params, tokens[1, 2]), atol=2e-5)
  np.testing.assert_allclose(got[:, :, :5], policy.apply(params, tokens[..., :5]), atol=2e-5)


def test_a_window_hides_what_is_older():
  policy, params = _make("windows")  # two layers see 2 * (3 - 1) tokens back
  tokens = _tokens(12)
  logits = policy.apply(params, tokens)
  other = policy.apply(params, tokens.at[4].set((tokens[4] + 1) % 23))
  changed = np.abs(logits - other).max(-1) > 1e-6
  np.testing.assert_array_equal(changed, (np.arange(12) >= 4) & (np.arange(12) <= 8))


@pytest.mark.parametrize("remat", ["full", "dots", "attention"])
def test_remat_changes_no_gradient(remat):
  policy, params = _make()
  loss = lambda policy: lambda p: jnp.sum(policy.apply(p, _tokens(2, 6)) ** 2)
  want = jax.grad(loss(policy))(params)
  got = jax.grad(loss(_make(remat=remat)[0]))(params)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


def test_axes_name_every_dimension():
  policy, params = _make(tied=False, qkv_bias=True, qk_norm=True)
  is_names = lambda x: isinstance(x, tuple)
  jax.tree.map(
    lambda n, x: len(n) == x.ndim or pytest.fail(f"{n} {x.shape}"),
    policy.axes,
    params,
    is_leaf=is_names,
  )
  assert policy.axes["layers"]["query"]["kernel"] == ("layers", "embed", "heads")
  assert policy.axes["head"] == ("embed", "vocab")


def test_whole_programs_vmap_over_seeds():
  policy, _ = _make(layers=1)

  def program(key):
    params = policy.init(key)
    loss = lambda p: policy.apply(p, _tokens(2, 5)).sum()
    params = jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
    _, cache = policy.prefill(
      policy.unstack(params), _tokens(2, 5), jnp.array([3, 5]), policy.init_cache(2, 8)
    )
    return policy.decode(policy.unstack(params), jnp.array([1, 2]), jnp.array([3, 5]), cache)[0]

  keys = jax.random.split(jax.random.key(0), 3)
  got = jax.jit(jax.vmap(program))(keys)
  np.testing.assert_allclose(got[1], jax.jit(program)(keys[1]), rtol=1e-4, atol=1e-5)


def test_bfloat16_computes_with_float32_parameters():
  policy, params = _make(dtype="bfloat16")
  assert {x.dtype for x in jax.tree.leaves(policy.init(jax.random.key(0)))} == {
    jnp.dtype("float32")
  }
  assert policy.hidden(params, _tokens(2, 5)).dtype == jnp.bfloat16
  logits = policy.apply(params, _tokens(2, 5))
  assert logits.dtype == jnp.float32
  want = _make()[0].apply(params, _tokens(2, 5))
  np.testing.assert_allclose(logits, want, atol=0.15)


def test_float64_is_float64_throughout():
  with jax.enable_x64(True):
    policy, params = _make(dtype="float64")
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float64")}
    tokens = _tokens(6)
    logits = policy.apply(params, tokens)
    assert logits.dtype == jnp.float64
    hidden, _ = policy.prefill(
      policy.unstack(params), tokens[None], jnp.array([6]), policy.init_cache(1, 6)
    )
    np.testing.assert_allclose(hidden[0] @ policy.head(params), logits[-1], rtol=1e-10)


def test_the_cache_is_updated_in_place():
  policy, params = _make()
  small, cache = policy.unstack(params), policy.init_cache(4, 1024)

  def loop(cache):
    def body(carry):
      step, tokens, cache = carry
      hidden, cache = policy.decode(small, tokens, jnp.full(4, step), cache)
      return step + 1, jnp.argmax(hidden @ policy.head(small), -1), cache

    return jax.lax.while_loop(lambda c: c[0] < 5, body, (0, jnp.zeros(4, jnp.int32), cache))

  memory = jax.jit(loop, donate_argnums=0).lower(cache).compile().memory_analysis()
  size = sum(x.nbytes for x in jax.tree.leaves(cache))
  assert memory.alias_size_in_bytes >= size
  assert memory.temp_size_in_bytes < size


def test_attention_back_ends_refuse_by_name():
  q, k = jnp.zeros((1, 4, 2, 8)), jnp.zeros((1, 4, 1, 8))
  spans = segment_spans(jnp.zeros((1, 4), int))
  with pytest.raises(ValueError, match="'cudnn' does not support float32, head size 8, "):
    attention(q, k, k, spans=spans, softcap=1.0, backend="cudnn")
  with pytest.raises(ValueError, match="'triton' does not support float32, head size 8"):
    attention(q, k, k, spans=spans, window=3, softcap=1.0, backend="triton")
  with pytest.raises(ValueError, match=r"Unknown attention back end 'flash': xla, cudnn"):
    attention(q, k, k, backend="flash")
  assert "segment ids" in BACKENDS["xla"].supports


@pytest.mark.parametrize("name, function", [("silu", jax.nn.silu), ("gelu_tanh", jax.nn.gelu)])
def test_the_gate_has_the_activation_of_the_config(name, function):
  config = policies.tiny(9, activation=name)
  gate, up = jnp.linspace(-2, 2, 5), jnp.arange(5.0)
  np.testing.assert_allclose(gated(config, gate, up), function(gate) * up, rtol=1e-6)


def test_a_gate_with_limits_by_hand():
  """Gates are cut above, up on both sides, and then 1 is added."""
  config = policies.tiny(9, activation="quick_gelu", mlp_limit=2.0, up_offset=1.0)
  gate, up = jnp.array([-3.0, 1.0, 3.0, 9.0]), jnp.array([0.5, -1.0, 5.0, -5.0])
  quick = lambda x: x / (1 + np.exp(-1.702 * x))
  want = [quick(-3.0) * 1.5, 0.0, quick(2.0) * 3.0, quick(2.0) * -1.0]
  np.testing.assert_allclose(gated(config, gate, up), want, rtol=1e-5)


@pytest.mark.parametrize(
  "field", [{"activation": "relu"}, {"query_scale": 0.0}, {"mlp_limit": 0.0}, {"expert_bias": True}]
)
def test_wrong_fields_of_a_layer_are_refused(field):
  [name] = field
  with pytest.raises(ValueError, match=name):
    policies.make(policies.tiny(8, **field))


def test_attention_equals_the_definition():
  q, k, v = (jax.random.normal(jax.random.key(i), (6, n, 4)) for i, n in enumerate((9, 3, 3)))
  segments = jnp.array([1, 1, 1, 1, 2, 2])
  got = attention(q, k, v, spans=segment_spans(segments), window=3, softcap=2.0)
  for t in range(6):
    for n in range(9):
      seen = [s for s in range(t + 1) if segments[s] == segments[t] and t - s < 3]
      logits = np.array([2 * np.tanh(np.dot(q[t, n], k[s, n // 3]) / 2 / 2) for s in seen])
      probs = np.exp(logits) / np.exp(logits).sum()
      want = sum(p * np.asarray(v[s, n // 3]) for p, s in zip(probs, seen, strict=True))
      np.testing.assert_allclose(got[t, n], want, atol=1e-5)


@pytest.mark.parametrize(
  "overrides, message",
  [
    ({"kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
    ({"head_dim": 7}, "head_dim=7"),
    ({"windows": (4,)}, "windows has 1 entries for layers=2"),
    ({"dtype": "int32"}, "dtype='int32'"),
    ({"remat": "some"}, "'some': none, dots, attention, full"),
  ],
)
def test_bad_configs_are_named(overrides, message):
  with pytest.raises(ValueError, match=message):
    policies.make(policies.tiny(8, **overrides))


def test_parameters_start_on_a_mesh():
  policy, _ = _make(layers=1)
  mesh = jax.make_mesh((2, 4), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
  key = jax.random.key(0)
  want = policy.init(key)
  with jax.set_mesh(mesh):
    got = jax.jit(policy.init)(key)  # the names of axes are no names of this mesh
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.mark.parametrize("changes", [{"layers": 0}, {"heads": -4}, {"mlp_size": 1.5}])
def test_sizes_that_are_no_sizes_are_named(changes):
  ((name, value),) = changes.items()
  with pytest.raises(ValueError, match=rf"{name}={value} is not a whole number"):
    policies.tiny(8, **changes)

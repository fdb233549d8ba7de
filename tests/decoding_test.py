"""The kernels of decoding against their plain twins, interpreted; and lowered for a GPU."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.policies import cache as plain
from lcrl.policies import triton_decode
from lcrl.policies.block import rotation

H, K, PLACES, ASKED = 32, 2, 70, 40


def attention_case(rows=8, prompts=2, group=3, cache_dtype=None, window=None):
  """Arguments of `attend`: own lengths from 0 to all but one place, one row that is not live."""
  c = policies.tiny(8, heads=K * group, kv_heads=K, head_dim=H, dtype="bfloat16")
  keys = iter(jax.random.split(jax.random.key(0), 9))
  normal = lambda *shape: jax.random.normal(next(keys), shape, jnp.bfloat16)
  at = jnp.asarray(np.linspace(0, PLACES - 1, rows), jnp.int32)
  live = jnp.arange(rows) != 3
  like = plain.init_cache(c, 1, 1, cache_dtype)[0]
  slot = lambda n, length: plain.pack(normal(n, K, length, H), normal(n, K, length, H), like)
  own = slot(rows, PLACES)
  prompt = slot(prompts, ASKED) if prompts else None
  seen = jnp.asarray(np.linspace(7, ASKED, prompts), jnp.int32) if prompts else None
  before = 0 if seen is None else jnp.repeat(seen, rows // prompts)
  turn = rotation(c, (before + at)[:, None])
  return c, normal(rows, K, group + 2, H), turn, own, at, live, prompt, seen, window


@pytest.mark.parametrize(
  "case,keys",
  [
    ({}, 16),
    ({"prompts": 8}, 128),  # nobody shares
    ({"prompts": None, "window": 9}, 32),
    ({"window": 20, "group": 1}, 64),
    ({"cache_dtype": "int8"}, 128),
  ],
)
def test_attention_equals_its_twin(case, keys):
  args = attention_case(**case)
  run = lambda f: jax.jit(f, static_argnums=(0, 8))(*args)
  tiles = triton_decode.Tiles(keys=keys)
  got, kept = run(partial(triton_decode.attend, tiles=tiles, interpret=True))
  want, wanted = run(plain.attend)
  live = np.asarray(args[5])
  wide = lambda x: np.asarray(x, np.float32)[live]
  np.testing.assert_allclose(wide(got), wide(want), atol=0.05 if "cache_dtype" in case else 0.02)
  for name, x in wanted.items():
    np.testing.assert_allclose(wide(kept[name]), wide(x), atol=1 if x.dtype == jnp.int8 else 1e-6)


def test_attention_reads_nothing_behind_a_row():
  """Garbage in dead places, in dead rows and behind prompts changes nothing."""
  c, qkv, turn, own, at, live, prompt, seen, window = attention_case()
  attend = jax.jit(partial(triton_decode.attend, interpret=True), static_argnums=(0, 8))
  want, _ = attend(c, qkv, turn, own, at, live, prompt, seen, window)
  dead = (jnp.arange(PLACES)[None] >= at[:, None]) | ~live[:, None]
  spoil = lambda x, where: jnp.where(where[:, None, :, None], jnp.nan, x)
  own = {name: spoil(x, dead) for name, x in own.items()}
  prompt = {name: spoil(x, jnp.arange(ASKED)[None] >= seen[:, None]) for name, x in prompt.items()}
  got, _ = attend(c, qkv, turn, own, at, live, prompt, seen, window)
  np.testing.assert_array_equal(np.asarray(got)[live], np.asarray(want)[live])


@pytest.mark.parametrize("cache_dtype", [None, "int8"])
def test_a_token_is_one_kernel_a_layer_and_its_products(cache_dtype):
  """Lowered for a GPU, which none needs to be there for."""
  c = policies.tiny(64, hidden_size=128, head_dim=32, dtype="bfloat16", decoding="triton")
  policy = policies.make(c)
  copy = jax.eval_shape(policy.unstack, jax.eval_shape(policy.init, jax.random.key(0)))
  cache = jax.eval_shape(partial(policy.init_cache, 32, 64, cache_dtype))
  row = jax.ShapeDtypeStruct((32,), jnp.int32)
  traced = jax.jit(policy.decode).trace(copy, row, row, cache)
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("stablehlo.custom_call") == c.layers
  assert text.count("stablehlo.dot_general") == 4 * c.layers

"""The kernels of decoding against their plain twins, interpreted; and lowered for a GPU."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType
from jax.sharding import PartitionSpec as P

from lcrl import policies
from lcrl.mesh import AXES, BATCH, make_mesh
from lcrl.policies import cache as plain
from lcrl.policies import decoding, triton_decode
from lcrl.policies.block import rotation
from tests import gpu

H, K, PLACES, ASKED = 32, 2, 70, 40


def attention_case(rows=8, prompts=2, group=3, cache_dtype=None, window=None):
  """Arguments of `attend`: own lengths from 0 to all but one place, one row that is not live."""
  c = policies.tiny(8, heads=K * group, kv_heads=K, head_dim=H, dtype="bfloat16", query_scale=0.3)
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
  rope = rotation(c, (before + at)[:, None])
  return c, normal(rows, K, group + 2, H), rope, own, at, live, prompt, seen, window


@pytest.mark.parametrize(
  "case,keys",
  [
    ({}, 16),
    ({"prompts": 8}, 128),  # nobody shares
    ({"prompts": None, "window": 9}, 32),
    ({"window": 20, "group": 1}, 64),
    ({"cache_dtype": "int8"}, 128),
    ({"cache_dtype": "float8_e4m3fn"}, 64),
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
  np.testing.assert_allclose(wide(got), wide(want), atol=0.02)
  for name, x in wanted.items():
    code = {"int8": {"atol": 1}, "float8_e4m3fn": {"rtol": 1 / 8}}.get(x.dtype.name, {"atol": 1e-6})
    np.testing.assert_allclose(wide(kept[name]), wide(x), **code)


def test_attention_reads_nothing_behind_a_row():
  """Garbage in dead places, in dead rows and behind prompts changes nothing."""
  c, qkv, rope, own, at, live, prompt, seen, window = attention_case()
  attend = jax.jit(partial(triton_decode.attend, interpret=True), static_argnums=(0, 8))
  want, _ = attend(c, qkv, rope, own, at, live, prompt, seen, window)
  dead = (jnp.arange(PLACES)[None] >= at[:, None]) | ~live[:, None]
  spoil = lambda x, where: jnp.where(where[:, None, :, None], jnp.nan, x)
  own = {name: spoil(x, dead) for name, x in own.items()}
  prompt = {name: spoil(x, jnp.arange(ASKED)[None] >= seen[:, None]) for name, x in prompt.items()}
  got, _ = attend(c, qkv, rope, own, at, live, prompt, seen, window)
  np.testing.assert_array_equal(np.asarray(got)[live], np.asarray(want)[live])


def test_nothing_beyond_the_read_length_is_read():
  """And rows that need no more see no difference."""
  c, qkv, rope, own, at, _, prompt, seen, window = attention_case()
  most = 31
  at, live = jnp.minimum(at, most - 1), jnp.ones(len(at), bool)
  attend = jax.jit(plain.attend, static_argnums=(0, 8, 9))
  want, _ = attend(c, qkv, rope, own, at, live, prompt, seen, window)
  spoilt = {name: x.at[:, :, most:].set(jnp.nan) for name, x in own.items()}
  got, kept = attend(c, qkv, rope, spoilt, at, live, prompt, seen, window, most)
  np.testing.assert_allclose(got.astype(np.float32), want.astype(np.float32), atol=1e-6)
  assert kept["k"].shape == own["k"].shape


@pytest.mark.parametrize("dtype,step", [("int8", 1 / 127), ("float8_e4m3fn", 1 / 16)])
def test_a_byte_holds_a_key_to_half_a_step(dtype, step):
  """Of its largest number in int8, of itself in float8; large and small keys alike, and zeros."""
  x = jax.random.normal(jax.random.key(0), (64, H)) * jnp.logspace(-6, 6, 64)[:, None]
  x = x.at[3].set(0.0)
  codes, scale = plain.quantize(x, jnp.dtype(dtype))
  error = jnp.abs(codes.astype(jnp.float32) * scale[:, None] - x)
  top = jnp.abs(x).max(-1, keepdims=True)
  bound = top * step / 2 if dtype == "int8" else jnp.maximum(jnp.abs(x) * step, top * 2**-9 / 448)
  assert bool((error <= bound * 1.001).all())
  assert float((error / jnp.maximum(bound, 1e-30)).max()) > 0.9  # and no better


@pytest.mark.parametrize("dtype", ["uint8", "float8_e5m2", "int16"])
def test_a_cache_of_another_type_is_refused(dtype):
  with pytest.raises(ValueError, match=f"a cache of {dtype}: .* int8, float8_e4m3fn"):
    plain.init_cache(policies.tiny(8), 1, 1, dtype)


@pytest.mark.parametrize("cache_dtype", [None, "int8", "float8_e4m3fn"])
def test_a_token_is_one_kernel_a_layer_and_its_products(cache_dtype):
  c = policies.tiny(64, hidden_size=128, head_dim=32, dtype="bfloat16", decoding="triton")
  policy = policies.make(c)
  copy = jax.eval_shape(policy.unstack, jax.eval_shape(policy.init, jax.random.key(0)))
  cache = jax.eval_shape(partial(policy.init_cache, 32, 64, cache_dtype))
  row = jax.ShapeDtypeStruct((32,), jnp.int32)
  text = gpu.lowered(policy.decode, copy, row, row, cache)
  assert text.count("call @one_layer(") == c.layers  # a layer is lowered once
  assert text.count("stablehlo.custom_call") == 1
  assert text.count("stablehlo.dot_general") == 4


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("kernel", ["xla", "triton"])
@pytest.mark.slow
def test_each_device_of_a_tensor_axis_decodes_its_own_heads(monkeypatch, kernel, paged):
  """Two data shards of four devices, as the sampler runs them, give what one device does."""
  heads, seen, row = decoding.KERNELS[kernel], [], {"interpret": True} if kernel == "triton" else {}

  def noted(attend):
    def run(c, qkv, *args):
      seen.append(qkv.shape[1])
      return attend(c, qkv, *args, **row)

    return run

  functions = {name: noted(getattr(heads, name)) for name in ("attend", "attend_pages")}
  own = heads._replace(by_heads=True, **functions)
  monkeypatch.setitem(decoding.KERNELS, kernel, own)
  dtype, atol = ("bfloat16", 0.05) if kernel == "triton" else ("float32", 1e-5)
  sizes = dict(layers=2, hidden_size=64, heads=8, kv_heads=4, head_dim=32, mlp_size=64)
  policy = policies.make(policies.tiny(16, **sizes, dtype=dtype, decoding=kernel))
  params = policy.unstack(policy.init(jax.random.key(0)))
  rows, page = 8, 16
  at = jnp.arange(rows) * 5
  noise = lambda x: jax.random.normal(jax.random.key(x.ndim), x.shape).astype(x.dtype)
  cache = jax.tree.map(
    noise, policy.init_cache(rows * 3 if paged else rows, page * 3 ** (not paged))
  )
  table = jnp.tile(jnp.arange(rows // 2 * 3, dtype=jnp.int32).reshape(-1, 3), (2, 1))
  prompt = (
    None
    if paged
    else plain.Prompts(
      jnp.full((rows // 2,), 7), jax.tree.map(noise, policy.init_cache(rows // 2, 9))
    )
  )

  def decode(params, cache, table, prompt, at):
    table = table if paged else None
    return policy.decode(
      params, at % 16, at + 7 * (not paged), cache, at=at, prompts=prompt, table=table
    )

  halves = lambda x, n: jax.tree.map(lambda x: x[len(x) // 2 * n : len(x) // 2 * (n + 1)], x)
  given = cache, table, prompt, at
  one = [jax.jit(decode)(params, *halves(given, n)) for n in (0, 1)]
  want = jax.tree.map(lambda *xs: jnp.concatenate(xs), *one)
  assert {*seen} == {4}
  seen.clear()
  run = jax.shard_map(
    decode,
    mesh=make_mesh(data=2, fsdp=1, tensor=4),
    in_specs=(P(), *[BATCH] * 4),
    out_specs=BATCH,
    axis_names={"data", "fsdp"},
    check_vma=False,
  )
  got = jax.jit(run)(params, *given)
  assert {*seen} == {1}
  wide = lambda x: np.asarray(x, np.float32)
  jax.tree.map(lambda x, y: np.testing.assert_allclose(wide(x), wide(y), atol=atol), got, want)


def test_the_kernel_is_lowered_for_the_heads_of_a_device():
  """Inside what splits the batch, as the sampler runs it."""
  mesh = AbstractMesh((2, 1, 1, 4), AXES, (AxisType.Auto,) * 4, abstract_device=gpu.H100)
  sizes = dict(layers=1, hidden_size=64, heads=8, kv_heads=4, head_dim=64, dtype="bfloat16")
  policy = policies.make(policies.tiny(16, **sizes, decoding="triton"))
  params = jax.eval_shape(lambda: policy.unstack(policy.init(jax.random.key(0))))
  pool = jax.eval_shape(lambda: policy.init_cache(24, 16))
  run = jax.shard_map(
    lambda params, at, pool, table: policy.decode(params, at, at, pool, table=table),
    in_specs=(P(), *[BATCH] * 3),
    out_specs=BATCH,
    axis_names={"data", "fsdp"},
    check_vma=False,
  )
  at, table = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((8,), (8, 3)))
  text = gpu.lowered(run, params, at, pool, table, mesh=mesh)
  assert re.search(r"gpu\.triton\(.*grid_x = 4 : i32, grid_y = 1 : i32", text)

"""The weight products of a small decoder's token, each one Triton kernel with its norm, its gate or
its residual. `products` has the plain twins.

A product of a small model takes as long as a launch and a trip to memory; norms, gates and sums of
their own would double that. A program holds a tile of the result and walks over the depth. The norm
costs it a sum of squares on the way: norm(x) @ W = (x * scale) @ W / rms(x), row by row.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lcrl.policies import products as plain
from lcrl.policies.products import Products

WIDEST = 1024  # of a residual stream: beyond, products take longer than what stands around them


@dataclasses.dataclass(frozen=True)
class Tiles:
  """How the work is cut."""

  rows: int = 64  # at most
  columns: int = 64
  depth: int = 64  # read at once
  warps: int = 4
  stages: int = 4  # pieces of the depth on their way


READ, GATE, ADD = Tiles(), Tiles(), Tiles(columns=32)


def fits(x: jax.Array, hidden: int, *sizes: int) -> bool:
  """Do the kernels serve rows of `hidden`, with products of these depths and widths?"""
  even = x.ndim == 2 and not len(x) % 16 and not any(n % 64 for n in (hidden, *sizes))
  return even and hidden <= WIDEST and x.dtype == jnp.bfloat16


def read(eps, scale, x, kernel, *, tiles: Tiles = READ, interpret: bool = False):
  """As `products.read`, where a bfloat16 model is small."""
  flat = kernel.reshape(len(kernel), -1)
  if not fits(x, len(kernel), flat.shape[1]):
    return plain.read(eps, scale, x, kernel)
  y = _product(x, flat, scale=scale, eps=eps, tiles=tiles, interpret=interpret)
  return y.reshape(len(x), *kernel.shape[1:])


def gate(eps, scale, x, kernel, *, tiles: Tiles = GATE, interpret: bool = False):
  """As `products.gate`."""
  if not fits(x, len(kernel), kernel.shape[2]):
    return plain.gate(eps, scale, x, kernel)
  flat = kernel.reshape(len(kernel), -1)
  options = {"scale": scale, "eps": eps, "gated": True}
  return _product(x, flat, **options, tiles=tiles, interpret=interpret)


def add(x, y, kernel, *, tiles: Tiles = ADD, interpret: bool = False):
  """As `products.add`."""
  if not fits(x, kernel.shape[1], len(kernel)):
    return plain.add(x, y, kernel)
  return _product(y, kernel, residual=x, tiles=tiles, interpret=interpret)


TRITON = Products(read, gate, add)


def _product(x, w, *, scale=None, eps=0.0, residual=None, gated=False, tiles, interpret):
  """[R, D] x [D, N] -> [R, N], or [R, N / 2] where a gate stands before what it opens."""
  rows, width = len(x), w.shape[1] // (2 if gated else 1)
  tiles = dataclasses.replace(tiles, rows=min(tiles.rows, rows & -rows))
  if width % tiles.columns or len(w) % tiles.depth:
    raise ValueError(f"{tiles} do not divide a product of [{len(w)}, {width}].")
  kernel = functools.partial(
    _kernel,
    tiles=tiles,
    eps=eps,
    normed=scale is not None,
    added=residual is not None,
    gated=gated,
  )
  return pl.pallas_call(
    kernel,
    grid=(rows // tiles.rows, width // tiles.columns),
    out_shape=jax.ShapeDtypeStruct((rows, width), x.dtype),
    compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
    interpret=interpret,
    name="decode_product",
  )(x, w, *(more for more in (scale, residual) if more is not None))


def _kernel(x, w, *rest, tiles, eps, normed, added, gated):
  *more, out = rest
  rows = pl.ds(pl.program_id(0) * tiles.rows, tiles.rows)
  first, depth, width = pl.program_id(1) * tiles.columns, x.shape[1], out.shape[1]
  columns = [pl.ds(first + part * width, tiles.columns) for part in range(2 if gated else 1)]

  def step(i, carry):
    sums, squares = carry
    deep = pl.ds(i * tiles.depth, tiles.depth)
    a = plgpu.load(x.at[rows, deep])
    if normed:
      wide = a.astype(jnp.float32)
      squares += (wide * wide).sum(axis=1)
      a = (wide * plgpu.load(more[0].at[deep])[None]).astype(x.dtype)
    parts = [plgpu.dot(a, plgpu.load(w.at[deep, some])) for some in columns]
    return [s + part for s, part in zip(sums, parts, strict=True)], squares

  zeros = [jnp.zeros((tiles.rows, tiles.columns), jnp.float32) for _ in columns]
  carry = (zeros, jnp.zeros((tiles.rows,), jnp.float32))
  sums, squares = jax.lax.fori_loop(0, depth // tiles.depth, step, carry)
  if normed:
    rms = jax.lax.rsqrt(squares / depth + eps)[:, None]
    sums = [s * rms for s in sums]
  y = sums[0]
  if gated:
    y = y * jax.nn.sigmoid(y) * sums[1]
  if added:
    y += plgpu.load(more[-1].at[rows, columns[0]]).astype(jnp.float32)
  plgpu.store(out.at[rows, columns[0]], y.astype(out.dtype))

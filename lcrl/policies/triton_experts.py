"""Products of rows with the matrices of their experts, as Triton kernels for NVIDIA GPUs.

`jax.lax.ragged_dot` is the plain twin. XLA multiplies every row with every expert's matrix there;
the kernels multiply it with one. The rows of an expert fill whole blocks (`experts.arrange`), so
that a program reads one matrix:

    forward                   block [own, K] of rows x tile [K, tile] of its expert's matrix
    gradient of the rows      the same with the matrix transposed
    gradient of the matrices  a tile of one expert, a sum over the blocks of its rows
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as gpu

SMALLEST = 16  # rows, columns and depth of a product on tensor cores
MOST = 2**31 - 1  # numbers of an array that a kernel reads: it counts them in int32


class Tiles(NamedTuple):
  """Everything static."""

  own: int  # rows of a block
  wide: int = 128  # at most, and a power of 2, as is `deep`: columns of a program's result
  deep: int = 64  # depth of one product
  warps: int = 4
  stages: int = 3
  interpret: bool = False


def tiles(mean_rows: float) -> Tiles:
  """Tiles for experts that so many rows choose, on average: larger blocks would mostly be filled
  up."""
  if mean_rows >= 128:
    return Tiles(128, warps=8)
  return Tiles(max(SMALLEST, min(64, pl.next_power_of_2(int(mean_rows) + 1))), wide=64, deep=128)


def refusal(count: int, *sizes: int) -> str | None:
  """Why so many matrices of these sizes cannot be multiplied here, or None."""
  if count * math.prod(sizes) > MOST:
    return f"{count} matrices of {sizes}"
  return next((f"a size of {n} is no multiple of {SMALLEST}" for n in sizes if n % SMALLEST), None)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def product(how: Tiles, rows: jax.Array, matrices: jax.Array, sizes: jax.Array) -> jax.Array:
  """Each row times the matrix of its expert: [M, K], [E, K, N] -> [M, N], zeros behind the last.

  Args:
    rows: those of expert 0, then those of expert 1, ...; M a multiple of `how.own`.
    matrices: in the same type.
    sizes: [E] int32, how many rows each expert has, multiples of `how.own`.
  """
  return _product(how, rows, matrices, sizes, transposed=False)


def _forward(how: Tiles, rows, matrices, sizes):
  return product(how, rows, matrices, sizes), (rows, matrices, sizes)


def _backward(how: Tiles, kept, d):
  rows, matrices, sizes = kept
  d = d.astype(rows.dtype)
  d_rows = _product(how, d, matrices, sizes, transposed=True)
  return d_rows, _outer(how, rows, d, sizes).astype(matrices.dtype), None


product.defvjp(_forward, _backward)


def _product(how: Tiles, rows, matrices, sizes, *, transposed: bool):
  (count, depth), experts = rows.shape, len(matrices)
  wide = matrices.shape[1 if transposed else 2]
  tile, deep, whole = math.gcd(wide, how.wide), math.gcd(depth, how.deep), pl.no_block_spec
  first = jnp.arange(count // how.own) * how.own
  owner = jnp.searchsorted(jnp.cumsum(sizes), first, side="right").astype(jnp.int32)
  steps = jnp.where(owner < experts, depth // deep, 0)  # a block of no expert is zeros

  def kernel(owner, steps, rows, matrices, out):
    block, column = pl.program_id(0), pl.program_id(1) * tile
    expert = owner[block]

    def add(i, total):
      a = gpu.load(rows.at[:, pl.ds(i * deep, deep)])
      if transposed:
        b = gpu.load(matrices.at[expert, pl.ds(column, tile), pl.ds(i * deep, deep)]).T
      else:
        b = gpu.load(matrices.at[expert, pl.ds(i * deep, deep), pl.ds(column, tile)])
      return total + _dot(a, b)

    total = jax.lax.fori_loop(0, steps[block], add, jnp.zeros((how.own, tile), jnp.float32))
    out[...] = total.astype(out.dtype)

  return _call(
    how,
    kernel,
    grid=(count // how.own, wide // tile),
    in_specs=[whole, whole, pl.BlockSpec((how.own, depth), lambda i, j: (i, 0)), whole],
    out_specs=pl.BlockSpec((how.own, tile), lambda i, j: (i, j)),
    out_shape=jax.ShapeDtypeStruct((count, wide), rows.dtype),
  )(owner, steps, rows, matrices)


def _outer(how: Tiles, rows, d, sizes):
  """The gradient of the matrices: for each expert rows^T d over its own, [E, K, N]."""
  tall, wide = math.gcd(rows.shape[1], how.wide), math.gcd(d.shape[1], how.wide)
  firsts, blocks = jnp.cumsum(sizes) - sizes, sizes // how.own

  def kernel(firsts, blocks, rows, d, out):
    expert, row, column = (pl.program_id(i) for i in range(3))
    first = firsts[expert]

    def add(i, total):
      some = pl.ds(first + i * how.own, how.own)
      a = gpu.load(rows.at[some, pl.ds(row * tall, tall)])
      b = gpu.load(d.at[some, pl.ds(column * wide, wide)])
      return total + _dot(a.T, b)

    total = jax.lax.fori_loop(0, blocks[expert], add, jnp.zeros((tall, wide), jnp.float32))
    out[...] = total.astype(out.dtype)

  return _call(
    how,
    kernel,
    grid=(len(sizes), rows.shape[1] // tall, d.shape[1] // wide),
    in_specs=[pl.no_block_spec] * 4,
    out_specs=pl.BlockSpec((None, tall, wide), lambda e, i, j: (e, i, j)),
    out_shape=jax.ShapeDtypeStruct((len(sizes), rows.shape[1], d.shape[1]), rows.dtype),
  )(firsts, blocks, rows, d)


def _call(how: Tiles, kernel, **options):
  params = gpu.CompilerParams(num_warps=how.warps, num_stages=how.stages)
  return pl.pallas_call(
    kernel, compiler_params=params, interpret=how.interpret, name="expert_product", **options
  )


def _dot(a, b):
  """In float32, whose own products are not rounded."""
  exact = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
  return gpu.dot(a, b, precision=exact)

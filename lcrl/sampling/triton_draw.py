"""The end of a token as one Triton kernel: the product with the head, and the draw.

Logits never reach memory. A program multiplies some rows with a few tiles of the vocabulary. For
each tile it writes the largest logit, the mass, and the token that the noise picks within the tile;
a second kernel needs only these to pick the tile. Up to rounding the draws equal those of
`draw.draw` on dense logits, the plain twin.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from lcrl.policies.config import Config
from lcrl.sampling.draw import TILE


class Tiles(NamedTuple):
  """Sizes of blocks, and the launch."""

  rows: int = 128  # of a program, at most
  depth: int = 64  # entries of the states in one product, at most
  each: int = 4  # tiles of the vocabulary that a program takes, one after the other
  warps: int = 8
  stages: int = 3  # blocks of states and head on their way to shared memory


TILES = Tiles()


def refusal(c: Config) -> str | None:
  """Why this model cannot be drawn from here, or None."""
  if c.hidden_size % 16:
    return f"hidden_size={c.hidden_size}"
  if c.vocab_size < TILE:
    return f"vocab_size={c.vocab_size}"
  return c.dtype if jnp.dtype(c.dtype).itemsize != 2 else None


def draw(
  hidden: jax.Array,
  head: jax.Array,
  keys: jax.Array,
  temperature: jax.Array,
  *,
  softcap: float | None = None,
  tiles: Tiles = TILES,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """A token a row and its log-prob, [S] int32 and float32.

  Args:
    hidden: [S, D] last states, of 2 bytes a number.
    head: [V, D], a token's column of the output projection as a row.
    keys: [S] typed keys, of this token.
    temperature: [S]; 0 takes the largest logit (of equal ones the first), and its log-prob at 1.
    softcap: bound on the logits, None for none.
    tiles: sizes of blocks.
    interpret: runs without a GPU, slowly.
  """
  size, count = len(hidden), pl.cdiv(head.shape[0], TILE)
  rows = min(tiles.rows, max(16, pl.next_power_of_2(size)))
  spare = -size % rows
  noise = jax.vmap(lambda key: jax.random.gumbel(key, (count + TILE,), jnp.float32))(keys)
  noise = jnp.where(temperature[:, None] > 0, noise, 0.0)
  hidden, noise = (jnp.pad(x, ((0, spare), (0, 0))) for x in (hidden, noise))
  temperature = jnp.pad(temperature.astype(jnp.float32), (0, spare))
  call = functools.partial(pl.pallas_call, interpret=interpret)
  of_rows = pl.BlockSpec((rows,), lambda r, t: (r,))
  per_tile = call(
    functools.partial(
      _kernel, depth=_depth(head.shape[1], tiles.depth), each=tiles.each, softcap=softcap
    ),
    grid=(len(hidden) // rows, pl.cdiv(count, tiles.each)),  # rows of a tile follow each other
    in_specs=[
      pl.BlockSpec((rows, hidden.shape[1]), lambda r, t: (r, 0)),
      pl.BlockSpec(memory_space=pl.ANY),
      pl.BlockSpec((rows, TILE), lambda r, t: (r, 0)),
      of_rows,
    ],
    out_specs=[pl.BlockSpec((count, rows), lambda r, t: (0, r))] * 4,
    out_shape=[
      jax.ShapeDtypeStruct((count, len(hidden)), dtype)
      for dtype in (jnp.float32, jnp.float32, jnp.int32, jnp.float32)
    ],
    compiler_params=plgpu.CompilerParams(num_warps=tiles.warps, num_stages=tiles.stages),
    name="head_draw",
  )(hidden, head, noise[:, count:], temperature)
  together = min(rows, max(1, 4096 // pl.next_power_of_2(count)))
  token, log_prob = call(
    functools.partial(_choose, together=together),
    grid=(len(hidden) // together,),
    out_shape=[jax.ShapeDtypeStruct((len(hidden),), dtype) for dtype in (jnp.int32, jnp.float32)],
    compiler_params=plgpu.CompilerParams(num_warps=8),
    name="tile_draw",
  )(*per_tile, noise, temperature)
  return token[:size], log_prob[:size]


def _kernel(
  hidden, head, noise, temperature, top, mass, pick, logit, *, depth: int, each: int, softcap
):
  (rows, size), (vocab, _) = hidden.shape, head.shape
  divisor = jnp.where(temperature[...] > 0, temperature[...], 1.0)[:, None]
  within, own = jnp.arange(TILE), noise[...]

  def one(tile, _):
    ids = tile * TILE + within
    real = ids < vocab

    def block(i, logits):
      columns = i * depth + jnp.arange(depth)
      h = plgpu.load(hidden.at[jnp.arange(rows)[:, None], columns[None]])
      some = plgpu.load(head.at[ids[:, None], columns[None]], mask=real[:, None], other=0)
      return logits + plgpu.dot(h, some.T)

    logits = jax.lax.fori_loop(0, size // depth, block, jnp.zeros((rows, TILE), jnp.float32))
    if softcap is not None:
      logits = softcap * jnp.tanh(logits / softcap)
    logits = jnp.where(real[None], logits / divisor, -jnp.inf)
    highest, noisy = logits.max(axis=1), logits + own
    index = jnp.broadcast_to(within[None], logits.shape)
    first = jnp.where(noisy == noisy.max(axis=1)[:, None], index, TILE).min(axis=1)
    top[tile, :] = highest
    mass[tile, :] = highest + jnp.log(jnp.exp(logits - highest[:, None]).sum(axis=1))
    pick[tile, :] = tile * TILE + first
    logit[tile, :] = jnp.where(index == first[:, None], logits, 0.0).sum(axis=1)

  start = pl.program_id(1) * each
  jax.lax.fori_loop(start, jnp.minimum(start + each, pl.cdiv(vocab, TILE)), one, None)


def _choose(top, mass, pick, logit, noise, temperature, token, log_prob, *, together: int):
  """Picks a tile for each of some rows, and writes the token that it picked and its log-prob."""
  count, row = top.shape[0], pl.program_id(0) * together + jnp.arange(together)
  tile = jnp.arange(pl.next_power_of_2(count))[:, None]
  inside, index = tile < count, jnp.minimum(tile, count - 1)
  take = lambda x, *index: plgpu.load(x.at[index], mask=inside, other=-jnp.inf)
  masses = take(mass, index, row[None])
  drawn = (plgpu.load(temperature.at[row]) > 0)[None]
  noisy = jnp.where(drawn, masses + take(noise, row[None], index), take(top, index, row[None]))
  chosen = jnp.where(noisy == noisy.max(axis=0)[None], index, count).min(axis=0)
  highest = masses.max(axis=0)
  total = highest + jnp.log(jnp.exp(masses - highest[None]).sum(axis=0))
  plgpu.store(token.at[row], plgpu.load(pick.at[chosen, row]))
  plgpu.store(log_prob.at[row], plgpu.load(logit.at[chosen, row]) - total)


def _depth(size: int, most: int) -> int:
  """The largest power of 2 up to `most` that divides `size`."""
  return min(size & -size, most)

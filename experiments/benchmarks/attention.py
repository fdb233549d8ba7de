"""The attention back ends of this device against the plain twin: are they right, how fast are they?

python -m experiments.benchmarks.attention --backends=cudnn,triton
python -m experiments.benchmarks.attention --backends=splash

Errors are |got - want| / |want| of the output and of the gradients of q, k and v, where `want` is
the twin in float32 on the same bfloat16 numbers; exits 1 if one is above 1e-2. Times are of forward
and backward together. Prints a JSON line a case.
"""

import concurrent.futures
import functools
import itertools
import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from experiments.benchmarks.shapes import machine, timed
from lcrl.policies.attention import BACKENDS, attention, segment_spans, triton

FLAGS = flags.FLAGS

CASES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
  # features that a back end may refuse, and sizes: heads, kv heads, head size
  "causal": ({}, (9, 3, 64)),
  "packed": ({"packed": True}, (9, 3, 64)),
  "wide": ({"packed": True}, (12, 2, 128)),
  "branches": ({"packed": True, "branches": True}, (9, 3, 64)),
  "wide branches": ({"packed": True, "branches": True, "window": 100}, (12, 2, 128)),
  "window": ({"packed": True, "window": 100}, (9, 3, 64)),
  "window alone": ({"window": 100}, (9, 3, 64)),
  "soft-cap": ({"packed": True, "window": 100, "softcap": 5.0}, (9, 3, 64)),
}
TILES = (
  (128, 64, 4, 3),
  (128, 64, 8, 3),
  (128, 64, 8, 2),
  (128, 128, 8, 2),
  (128, 32, 4, 3),
  (64, 64, 4, 3),
  (64, 64, 4, 2),
  (64, 128, 4, 2),
  (64, 32, 4, 3),
  (128, 32, 8, 3),
  (128, 64, 8, 4),
)  # own rows, others, warps, stages
TIMED = {"qwen2.5-0.5b": (14, 2, 64), "qwen2.5-1.5b": (12, 2, 128), "smollm2-135m": (9, 3, 64)}


def inputs(rows: int, length: int, heads: int, kv_heads: int, size: int):
  """Queries, keys, values and the output's cotangent."""
  counts = enumerate((heads, kv_heads, kv_heads, heads))
  return [
    jax.random.normal(jax.random.key(i), (rows, length, n, size), jnp.bfloat16) for i, n in counts
  ]


def packed_ids(rows: int, length: int, mean: float) -> jax.Array:
  """Segments of exponential lengths."""
  rng = np.random.default_rng(0)
  ends = np.cumsum(1 + rng.exponential(mean, (rows, length)).astype(int), axis=1)
  count = [np.searchsorted(row, np.arange(length), side="right") for row in ends]
  return jnp.asarray(count, jnp.int32)


def both_passes(attend):
  def run(q, k, v, cotangent):
    out, back = jax.vjp(attend, q, k, v)
    return out, *back(cotangent.astype(out.dtype))

  return jax.jit(run)


def check(backend: str) -> bool:
  worst = 0.0
  for name, (features, sizes) in CASES.items():
    options = dict(features)
    if options.pop("packed", False):
      spans = segment_spans(ids := packed_ids(2, 1024, 150.0))
      place = jnp.arange(1024)[None] - spans.first
      branched = segment_spans(ids, place // 40) if options.pop("branches", False) else spans
      options["spans"] = branched
    arrays = inputs(2, 1024, *sizes)
    try:
      got = both_passes(functools.partial(attention, backend=backend, **options))(*arrays)
    except ValueError as refusal:
      print(json.dumps({"case": name, "backend": backend, "refused": str(refusal)}))
      continue
    except RuntimeError as error:
      print(json.dumps({"case": name, "backend": backend, "error": str(error)[:300]}))
      worst = np.inf
      continue
    wide = [x.astype(jnp.float32) for x in arrays]
    with jax.default_matmul_precision("highest"):
      want = both_passes(functools.partial(attention, **options))(*wide)
    norm = lambda x: float(jnp.linalg.norm(x.astype(jnp.float32)))
    errors = [norm(a - b) / norm(b) for a, b in zip(got, want, strict=True)]
    worst = max(worst, *(e if np.isfinite(e) else np.inf for e in errors))
    print(json.dumps({"case": name, "backend": backend, "errors": errors}), flush=True)
  return worst < 1e-2


def speed(
  shape: str,
  sizes: tuple[int, int, int],
  mean: float | None,
  programs: dict[str, Callable],
  *,
  rows: int,
  length: int,
  repeats: int,
) -> None:
  """Prints milliseconds and achieved TFLOP/s, of the products that causal attention needs.

  Args:
    shape: a name for the result.
    sizes: heads, kv heads, head size.
    mean: tokens of a segment; None: a row is one.
    programs: name -> (spans -> attend). They are compiled at the same time and timed in turn.
    rows, length: of a call.
    repeats: timed calls.
  """
  arrays = inputs(rows, length, *sizes)
  ids = packed_ids(rows, length, mean) if mean else None
  spans = None if ids is None else segment_spans(ids)
  pairs = rows * length * (length + 1) / 2
  if spans is not None:
    place = jnp.arange(length)[None]
    pairs = float((place - spans.first + 1).astype(jnp.float32).sum())
  heads, _, size = sizes
  flops = 14 * pairs * heads * size  # 2 products forward, 5 back, of 2 each

  def compiled(attend):
    try:
      return both_passes(attend(spans)).lower(*arrays).compile()
    except (ValueError, RuntimeError) as error:
      return str(error)[:200]

  with concurrent.futures.ThreadPoolExecutor() as pool:
    ready = dict(zip(programs, pool.map(compiled, programs.values()), strict=True))
  for name, run in ready.items():
    result: dict[str, Any] = {"shape": shape, "rows": rows, "length": length}
    result |= {"mean_segment": mean, "program": name}
    if isinstance(run, str):
      result |= {"error": run}
    else:
      seconds = timed(functools.partial(run, *arrays), repeats)["seconds"]
      result |= {"ms": 1e3 * seconds, "tflops": flops / seconds / 1e12}
    print(json.dumps(result), flush=True)


def backends(names: list[str]) -> dict[str, Callable]:
  """Back ends by name, as `speed` takes them."""
  by = lambda name: lambda spans: functools.partial(attention, backend=name, spans=spans)
  return {name: by(name) for name in names}


def tiles(size: int) -> dict[str, Callable]:
  """Each kernel with each tile, the others as they are; and all as they are but for the masks."""

  def attend(field, value, spans):
    settings = triton.TUNED[size]._replace(**{field: value})
    return functools.partial(
      triton.attend, spans=spans, window=None, softcap=None, scale=size**-0.5, settings=settings
    )

  masks = {f"unmasked {on}": functools.partial(attend, "unmasked", on) for on in (True, False)}
  return masks | {
    f"{field} {tile}": functools.partial(attend, field, triton.Tile(*tile))
    for field, tile in itertools.product(("forward", "queries", "keys"), TILES)
  }


def main(argv):
  del argv
  print(json.dumps(machine()))
  names = [name for name in FLAGS.backends if name in BACKENDS]
  right = [check(name) for name in names]
  row = {"rows": FLAGS.rows, "length": FLAGS.length, "repeats": FLAGS.repeats}
  for shape, mean in itertools.product(TIMED, (None, 512.0)):
    speed(shape, TIMED[shape], mean, backends(names), **row)
  if FLAGS.tune:
    for shape in ("qwen2.5-0.5b", "qwen2.5-1.5b"):
      speed(shape, TIMED[shape], None, tiles(TIMED[shape][2]), **row)
  sys.exit(not all(right))


def define():
  """The flags of this program."""
  flags.DEFINE_list("backends", ["xla", "cudnn", "triton"], "back ends to look at")
  flags.DEFINE_integer("rows", 8, "rows of a timed call")
  flags.DEFINE_integer("length", 4096, "tokens of a row")
  flags.DEFINE_integer("repeats", 10, "timed calls after the first")
  flags.DEFINE_bool("tune", False, "times the kernels' tiles too")


if __name__ == "__main__":
  define()
  app.run(main)

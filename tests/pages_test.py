"""Keys in pages: what is sampled does not depend on them, memory follows the tokens that live."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from configs import laser
from lcrl import policies
from lcrl.policies import cache as plain
from lcrl.policies import tpu_pages, triton_pages
from lcrl.policies.block import rotation
from lcrl.sampling import core, jobs
from lcrl.sampling.core import row_keys, sample
from lcrl.sampling.pages import in_use, next_starts, startable
from lcrl.training import loop
from tests.helpers.slow import slow

V, GROUPS, G, P, N, END = 24, 6, 4, 7, 24, (1,)
R = GROUPS * G
POLICY = policies.make(policies.tiny(V, layers=2, hidden_size=32, head_dim=8, mlp_size=48))
PAGE = 4
ROW_PAGES = 8  # of 4 tokens: 7 of the prompt and 24 of the response


@pytest.fixture(scope="module")
def params():
  return jax.jit(POLICY.init)(jax.random.key(0))


@cache
def rows():
  """tokens, lengths, caps: prompts of 1 to 7 tokens, caps of 3 to 24."""
  rng = np.random.default_rng(0)
  lengths = np.repeat(np.array([1, 7, 5, 4, 6, 2], np.int32), G)
  tokens = np.repeat(rng.integers(2, V, (GROUPS, P)), G, axis=0)
  tokens = np.where(np.arange(P) < lengths[:, None], tokens, 0).astype(np.int32)
  caps = rng.integers(3, N + 1, R).astype(np.int32)
  return tokens, lengths, caps


def keys():
  return row_keys(jax.random.key(1), jnp.arange(GROUPS), G).reshape(-1)


def job_of(params, **options):
  options = {"max_tokens": N, "end_ids": END, "group": G} | options
  return jobs.plan(POLICY, params, *map(jnp.asarray, rows()), keys(), **options)


@cache
def compiled(**options):
  def run(params):
    job = job_of(params, **options)
    slots = core.advance(job, core.start(job), R)
    return core.samples(slots, END), slots.pages

  return jax.jit(run)


@pytest.mark.slow
def test_pool_pages_and_slots_change_no_token_and_no_bit(params):
  """Nor do rows that leave their slots and start again."""
  want, _ = compiled(slots=R, page=PAGE)(params)
  assert 0 < int(want.truncated.sum()) < R
  again = []
  for slots, pages, page, narrow in (
    (8, None, PAGE, None),
    (R, 16, PAGE, 3),  # rows leave their slots after the others have gone on in few
    (12, 24, PAGE, None),
    (8, ROW_PAGES, PAGE, 2),  # of one row
    (8, 16, 2, None),
    (R, 5, 8, 8),
  ):
    got, p = compiled(slots=slots, pages=pages, page=page, narrow=narrow)(params)
    np.testing.assert_array_equal(got.tokens, want.tokens)
    np.testing.assert_array_equal(got.lengths, want.lengths)
    np.testing.assert_array_equal(got.log_probs, want.log_probs)
    assert int(p.peak) <= (pages or slots * ROW_PAGES)
    again.append(int(p.starts) - R)
  assert again[0] == 0 < min(again[1], again[3])
  dense = jax.jit(partial(sample, POLICY, max_tokens=N, end_ids=END, group=G))(
    params, *rows(), keys()
  )
  np.testing.assert_array_equal(dense.tokens, want.tokens)
  np.testing.assert_allclose(dense.log_probs, want.log_probs, atol=1e-5)


def test_the_most_pages_in_use_follow_the_tokens_that_live(params):
  """Not the slots, and not the limit: with all rows in slots, their caps bound the pages, and the
  full pages of a prompt count once a group."""
  got, p = compiled(slots=R, page=PAGE)(params)
  lengths = np.asarray(rows()[1])
  full = (lengths - 1) // PAGE
  last = lengths - 1 + np.asarray(got.lengths)  # keys of a row, all but its last token's
  own = -(-(last + PAGE) // PAGE) - full  # at most one page ahead of the tokens
  assert int(p.peak) <= full[::G].sum() + own.sum() < 0.8 * R * ROW_PAGES
  assert int(p.peak) >= full[::G].sum() + R  # a page of its own for each


def test_pages_return_and_none_has_two_owners(params):
  """Between turns: pages of different groups differ, and own pages of the rows of a group."""
  job = job_of(params, slots=12, pages=24, page=PAGE)
  advance = jax.jit(lambda s, until: core.advance(job, s, until))
  s = jax.jit(lambda: core.start(job))()
  seen = 0
  for until in range(1, R + 1):
    s = advance(s, until)
    live = np.flatnonzero(np.asarray(s.row) < R)
    full = (np.asarray(rows()[1])[np.asarray(s.row)[live]] - 1) // PAGE
    table, held = np.asarray(s.pages.table)[live], np.asarray(s.pages.held)[live]
    own = [x for t, f, h in zip(table, full, held, strict=True) for x in t[f:h]]
    shared = {x for t, f in zip(table, full, strict=True) for x in t[:f]}
    assert len(own) == len(set(own))
    assert not shared & set(own)
    assert int(in_use(job, s).sum()) == len(shared) + len(own) <= 24
    assert (held * PAGE > np.asarray(s.position)[live] - 1).all()
    seen = max(seen, len(live))
  assert seen > 3
  assert not in_use(job, s).any()
  assert not s.waits.any()


def test_the_longest_start_first(params):
  """By what is expected, bounded by caps; and it changes no token."""
  expected = jnp.repeat(jnp.array([3, 24, 5, 20, 4, 6]), G)
  tokens, lengths, _ = map(jnp.asarray, rows())
  caps = jnp.full((R,), N)
  plan = partial(
    jobs.plan,
    POLICY,
    params,
    tokens,
    lengths,
    caps,
    keys(),
    max_tokens=N,
    end_ids=END,
    group=G,
    slots=8,
    page=PAGE,
  )
  np.testing.assert_array_equal(plan().queue.order, np.arange(GROUPS))
  np.testing.assert_array_equal(plan(expected=expected).queue.order, [5, 0, 3, 1, 4, 2])
  run = lambda **options: core.complete(plan(**options)).tokens
  np.testing.assert_array_equal(jax.jit(run)(), jax.jit(partial(run, expected=expected))())


@pytest.mark.parametrize("pages,page", [(7, 4), (1, 16)])
def test_a_pool_smaller_than_a_row_is_refused(params, pages, page):
  text = f"{pages} pages of {page} tokens: a prompt of 7 tokens and a response of 24 need"
  with pytest.raises(ValueError, match=text):
    job_of(params, slots=8, pages=pages, page=page)


@pytest.mark.parametrize(
  "sampling, message",
  [
    (
      {"slots": 4, "cache_gib": 1e-6},
      r"sampling\.cache_gib=1e-06 holds 0 pages of 64 tokens, and a row of "
      r"train\.max_prompt_tokens=\d+ and train\.max_tokens=\d+ needs \d+",
    ),
    ({"cache_gib": 0.1}, r"cache_gib=0\.1 without slots"),
  ],
)
def test_a_run_refuses_a_pool_by_its_field(tmp_path, sampling, message):
  config = laser.get_config("d,smoke").to_dict()
  config["sampling"] |= sampling
  with pytest.raises(ValueError, match=message):
    loop.train(config, tmp_path)


def attention_case(cache_dtype=None, window=None, group=3, page=16, width=6, size=64):
  """Arguments of `attend_pages`: rows at the first position, at ends of pages and in between, one
  that is not live. Pages no row holds, and keys behind a row, are nan."""
  heads = 2
  c = policies.tiny(
    8, heads=heads * group, kv_heads=heads, head_dim=size, dtype="bfloat16", query_scale=0.3
  )
  keys = iter(jax.random.split(jax.random.key(0), 9))
  normal = lambda *shape: jax.random.normal(next(keys), shape, jnp.bfloat16)
  at = np.array([0, 5, page - 1, page, 40, 41, width * page - 1, 2 * page + 3])
  live = np.arange(len(at)) != 4
  shape = (64, heads, page, size)
  pool = plain.pack(normal(*shape), normal(*shape), plain.init_cache(c, 1, 1, cache_dtype)[0])
  table = np.random.default_rng(0).permutation(64)[: len(at) * width].reshape(len(at), width)
  used = np.zeros((64, page), bool)
  for row, position in enumerate(at):
    keys_of = np.arange(width * page).reshape(width, page) < position
    used[table[row]] = keys_of & live[row]
  spoil = lambda x: jnp.where(used[:, None, :, *[None] * (x.ndim - 3)], x, jnp.nan)
  spoiled = {n: spoil(x) if jnp.issubdtype(x.dtype, jnp.floating) else x for n, x in pool.items()}
  rope = rotation(c, jnp.asarray(at)[:, None])
  qkv = normal(len(at), heads, group + 2, size)
  given = lambda pool: (c, qkv, rope, pool, jnp.asarray(table, jnp.int32), jnp.asarray(at), live)
  return given(pool), given(spoiled), window, used


@pytest.mark.parametrize(
  "case,tiles",
  [
    ({}, {}),
    ({"window": 21}, {"span": 32, "keys": 16}),
    ({"group": 1, "page": 32, "width": 3}, {"span": 32}),
    slow({"cache_dtype": "int8"}, {"span": 48, "keys": 8}),
    ({"cache_dtype": "float8_e4m3fn", "window": 50}, {"span": 16}),
    slow({"size": 128, "group": 6}, {"span": 32}),
    slow({"size": 256, "group": 4, "page": 64, "width": 3}, {"span": 64}),
  ],
)
def test_the_kernel_equals_its_twin(case, tiles):
  """And reads nothing that no live row owns."""
  clean, spoiled, window, used = attention_case(**case)
  tiles = triton_pages.Tiles(**tiles)
  run = lambda f, args: jax.jit(f, static_argnums=(0, 7))(*args, window)
  want, wanted = run(plain.attend_pages, clean)
  got, kept = run(partial(triton_pages.attend, tiles=tiles, interpret=True), spoiled)
  live = np.asarray(clean[-1])
  wide = lambda x: np.asarray(x, np.float32)
  np.testing.assert_allclose(wide(got)[live], wide(want)[live], atol=0.02)
  assert not wide(got)[~live].any()
  new = used | (np.asarray(wanted["k"] != clean[3]["k"]).any(axis=(1, 3)))
  assert new.sum() == used.sum() + live.sum()
  for name, x in wanted.items():
    code = {"int8": {"atol": 1}, "float8_e4m3fn": {"rtol": 1 / 8}}.get(x.dtype.name, {"atol": 1e-6})
    mine, its = (wide(y).swapaxes(1, 2)[new] for y in (kept[name], x))
    np.testing.assert_allclose(mine, its, **code)


def test_the_kernel_for_tpus_equals_its_twin(monkeypatch):
  """Interpreted, in two calls; its block of 512 keys goes beyond the table."""
  monkeypatch.setattr(tpu_pages, "SCALARS", 8 * 8 * 4)  # tables of 8 of the 16 heads of rows
  args, *_ = attention_case(group=2, page=64, width=3, size=128)
  run = lambda f: jax.jit(f, static_argnums=(0, 7))(*args, None)
  want, wanted = run(plain.attend_pages)
  with pltpu.force_tpu_interpret_mode():
    got, kept = run(tpu_pages.attend)
  live, wide = np.asarray(args[-1]), lambda x: np.asarray(x, np.float32)
  np.testing.assert_allclose(wide(got)[live], wide(want)[live], atol=0.02)
  assert not wide(got)[~live].any()
  jax.tree.map(np.testing.assert_array_equal, kept, wanted)


def test_a_pool_of_full_length_fills_all_slots(params):
  """Also where a row is one page, which needs no other."""
  job = job_of(params, slots=R, page=64, refill=G)
  s = jax.jit(lambda: core.advance(job, core.start(job), 1))()
  assert job.pages == R
  assert not s.waits.any()


def test_a_group_of_which_some_wait_does_not_hold_others_up(params):
  """Eight rows are in slots, and of the first group only the last row waits: it starts alone."""
  job = job_of(params, slots=3 * G, page=PAGE, refill=G)
  s = core.start(job)
  waits = s.waits.at[: G - 1].set(False).at[G : 3 * G].set(False)
  s = s._replace(row=s.row.at[: 2 * G].set(jnp.arange(G, 3 * G)), waits=waits)
  s = s._replace(pages=s.pages._replace(held=s.pages.held.at[: 2 * G].set(1)))
  new = next_starts(job, s)
  assert new.rows[new.starts].tolist() == [G - 1]
  assert startable(job, s)

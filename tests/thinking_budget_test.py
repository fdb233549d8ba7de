"""A budget for the thinking, and stop texts, inside the sampler: against the text of its rows."""

import dataclasses
import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers as hf
from tokenizers import decoders, models

from lcrl import policies
from lcrl.data import tokenizers
from lcrl.policies.token_bytes import token_bytes
from lcrl.sampling import choices, controls, core, jobs, programs
from lcrl.sampling.programs import compiled
from lcrl.sampling.steering import budget_forcing
from lcrl.sampling.texts import automaton
from lcrl.sampling.thinking import stop_texts, thinking_budget
from lcrl.training.rl.cropping import cropped
from lcrl.types import EndReason
from tests.helpers.sampling import B, G, engine_of, make_budget, make_rows
from tests.helpers.tokenizer_folders import folder

R, P, N, END = 32, 7, 16, (1, 2)
PIECES = [*[b""] * 3, *b"a b c d ab bc cd da xab bcx cda dab abcd ca ac bd db aa x dd xx".split()]
V = len(PIECES)
POLICY = policies.make(policies.tiny(V, layers=1, hidden_size=32, head_dim=8, mlp_size=48))
CLOSE, STOPS = b"bcd", (b"dda", b"xx", b"aab")
FORCED = (4, 8, 6)  # "b", "bc", "d": CLOSE begins inside the first token that is forced
VOCABULARY = choices.Vocabulary(tokenizers.sums(), 20)


def completed(texts, before, piece):
  """The text that ends last inside the piece behind `before`, the longest: 1, 2, ..., or 0."""
  whole, ends = before + piece, []
  for k, text in enumerate(texts, 1):
    last = whole.rfind(text)
    if last >= 0 and last + len(text) > len(before):
      ends.append((last + len(text), len(text), k))
  return max(ends, default=(0, 0, 0))[-1]


def test_texts_are_found_wherever_tokens_have_their_borders():
  rng = np.random.default_rng(0)
  for texts in ([b"abc"], [b"aa", b"aab", b"b"], [b"abab", b"ba", b"xab", b"bab"]):
    table, before, node = automaton(texts, PIECES), b"", jnp.int32(0)
    step = jax.jit(table.step)
    for token in rng.integers(0, V, 300).tolist():
      node, found = step(node, token)
      assert int(found) == completed(texts, before, PIECES[token])
      before += PIECES[token]
  assert automaton([b"ab", b"abq"], PIECES).reachable == {1}
  # A text that ends with another is told from it, in whatever order they are.
  pieces = [b"x", b"a", b"b"]
  for texts in ([b"xa", b"a"], [b"a", b"xa"]):
    table = automaton(texts, pieces)
    assert table.reachable == {1, 2}
    assert [texts[table.read(tokens) - 1] for tokens in ([0, 1], [2, 1])] == [b"xa", b"a"]


def test_bytes_of_tokens_are_their_text(tmp_path):
  """Of bytes, and of pieces with a mark for white space, whose bytes have names."""
  added = policies.tokenizer(folder(tmp_path, special=("<|im_start|>", "<|im_end|>", "</think>")))
  text = "</think>\n\n1 + é漢<|im_end|>"
  joined = lambda pieces, ids: b"".join(pieces[i] for i in ids).decode()
  assert joined(added.token_bytes(), added.encode(text)) == text
  words = {"▁hello": 0, "▁": 1, "w": 2, "<0xC3>": 3, "<0xA9>": 4, "or": 5}
  core_ = hf.Tokenizer(models.BPE(words, [], byte_fallback=True))
  spaced = decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()
  core_.decoder = decoders.Sequence([*spaced, decoders.Strip(" ", 1, 0)])
  assert joined(token_bytes(core_), [2, 0, 3, 4, 1, 5]) == "w helloé or"


def rows():
  """tokens, lengths, caps, keys; groups of two have one prompt. Some end in the middle of CLOSE."""
  rng = np.random.default_rng(0)
  lengths = np.repeat(rng.integers(1, P + 1, R // 2), 2).astype(np.int32)
  tokens = np.repeat(rng.integers(3, V, (R // 2, P)), 2, axis=0)
  caps = np.full(R, N, np.int32)
  caps[-2:] = 7, 2
  keys = core.row_keys(jax.random.key(5), jnp.arange(R // 2), 2).reshape(-1)
  return jnp.array(tokens, jnp.int32), jnp.array(lengths), jnp.array(caps), keys


TARGETS = np.array([0, 1, 2, 3, 4, 5, 6, 30] * 4, np.int32)
STARTS = np.array([0, 1, 2, 3] * 8, np.int32)  # tokens of a prompt, at most, that begin a response
ASKED = {"targets": jnp.array(TARGETS), "forced": jnp.array(STARTS)}


@cache
def run(control=True, **options):
  thinking = thinking_budget(automaton([CLOSE], PIECES), FORCED, share=1.0, answer_tokens=2)
  both = controls.chain(thinking, stop_texts(automaton(STOPS, PIECES)))
  options |= {"max_tokens": N, "end_ids": END, "control": both if control else None}

  @jax.jit
  def sampled(params, rows):
    job = jobs.plan(POLICY, params, *rows, **ASKED, **options)
    if not job.refill:
      return core.complete(job), R
    s = core.advance(job, core.start(job), R)
    return core.samples(s, END), s.pages.starts

  params = jax.jit(POLICY.init)(jax.random.key(0))
  return jax.tree.map(np.asarray, sampled(params, rows()))


def test_rows_are_what_their_budgets_and_texts_say():
  (out, _), (plain, _) = run(), run(control=False)
  by_itself = at_limit = 0
  tokens, lengths, caps = map(np.asarray, rows()[:3])
  for row in range(R):
    start = max(lengths[row] - STARTS[row], 0)
    read = b"".join(PIECES[i] for i in tokens[row, start : lengths[row]])
    limit = max(min(TARGETS[row], caps[row] - len(FORCED) - 2), 0)
    thinking, spent, tape, said, cut = CLOSE not in read, 0, [], b"", False
    reason = None
    for n in range(out.lengths[row]):
      assert reason is None, "a row goes on behind its end"
      token, drawn = out.tokens[row, n], out.mask[row, n]
      piece = PIECES[token]
      if (
        thinking and not tape and spent >= limit and not (drawn and completed([CLOSE], read, piece))
      ):
        tape, cut = list(FORCED), True
      assert drawn == (not tape)
      if tape:
        assert token == tape.pop(0)
        assert out.log_probs[row, n] == 0
      elif not cut:  # as without a control
        assert token == plain.tokens[row, n]
        np.testing.assert_allclose(out.log_probs[row, n], plain.log_probs[row, n], atol=1e-5)
      if thinking and drawn and completed([CLOSE], read, piece):
        by_itself, at_limit = by_itself + 1, at_limit + (spent == limit)
      thinking &= not completed([CLOSE], read, piece)
      spent += bool(thinking and drawn)
      stop = completed(STOPS, said, piece)
      reason = EndReason.STOP_TEXT + stop - 1 if stop else None
      reason = EndReason.END_TOKEN if token in END else reason
      read, said = read + piece, said + piece
    if reason is None:
      assert out.lengths[row] == caps[row]
    assert out.end[row] == (EndReason.CAP if reason is None else reason)
    assert out.cut[row] == cut
  np.testing.assert_array_equal(out.truncated, out.end == EndReason.CAP)
  assert {0, 1, 3, 4, 5} == {*out.end.tolist()}  # EndReason, and all three stop texts
  assert 0 < out.cut.sum() < R
  assert 0 < at_limit < by_itself


@pytest.mark.parametrize(
  "layout",
  [dict(slots=5, group=2, page=5), dict(slots=6, refill=1, page=2, pages=13)],
  ids=["few slots", "a small pool"],
)
@pytest.mark.slow
def test_layouts_change_nothing(layout):
  """Nor do restarts: the small pool sends rows back."""
  (got, starts), (want, _) = run(**layout), run()
  assert (starts > R) == ("pages" in layout)
  for name in ("tokens", "mask", "lengths", "truncated", "end", "cut"):
    np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
  np.testing.assert_allclose(got.log_probs, want.log_probs, atol=1e-5)


@pytest.mark.parametrize(
  ("start_text", "thinks"),
  [(None, [True, True, True, True, False]), ("??", [False, True, False, True, False])],
)
def test_prompts_say_who_thinks(start_text, thinks):
  """A start is read wherever it stands. Without one only the start of the response is read."""
  draft = choices.thinking_budget(1, end_text="##", start_text=start_text)
  control = choices.finished(draft, VOCABULARY)
  texts = ["a1?", "??", "?" * 4 + "##a", "a##?" + "?", "??a##"]
  ids = [VOCABULARY.tokenizer.encode(text) for text in texts]
  lengths = jnp.array([len(row) for row in ids])
  tokens = jnp.array([row + [0] * (7 - len(row)) for row in ids])
  full = jnp.full(5, 9)
  state = control.init_asked(
    tokens, lengths, controls.Asked(full, full, jnp.array([1, 1, 1, 1, 2]))
  )
  assert state.thinking.tolist() == thinks
  if start_text:  # one that the response completes
    state, *_ = control.take(state, None, jnp.array(VOCABULARY.tokenizer.encode("?") * 5))
    assert state.thinking.tolist() == [True, *thinks[1:]]
    assert not state.spent[0]


def test_a_stop_token_in_the_forced_text_is_refused():
  """It would end the response in the middle of the text."""
  draft = choices.thinking_budget(9, end_text="##", forced_text="1##")
  choices.finished(draft, VOCABULARY)
  with pytest.raises(ValueError, match=r"forced_text='1##' has token 7, which ends a response"):
    choices.finished(draft, VOCABULARY._replace(stops=VOCABULARY.tokenizer.encode("1")))


def test_room_for_the_answer_is_kept_whatever_comes_before_the_thinking():
  """Cap 10: four tokens, then "??" starts a thinking, which must end at the ninth token."""
  draft = choices.thinking_budget(9, end_text="##", start_text="??", answer_tokens=1)
  control = choices.finished(draft, VOCABULARY)
  asked = controls.Asked(jnp.array([10]), jnp.array([10]), jnp.array([0]))
  state = control.init_asked(jnp.array([[0]]), jnp.array([1]), asked)
  said = ""
  for token in "1234" + "?" * 6:
    state, ids, _ = control.take(state, None, jnp.array(VOCABULARY.tokenizer.encode(token)))
    said += VOCABULARY.tokenizer.decode(ids.tolist())
  assert said == "1234???##?"
  assert state.cut.tolist() == [True]


@pytest.fixture(scope="module")
def engines():
  """Engines that count forced tokens, or do not, and the parameters of their policy."""
  policy = policies.make(policies.tiny(16, hidden_size=16, layers=1, head_dim=8, mlp_size=16))
  texts = automaton([b"dd"], [b""] * 2 + PIECES[3:9] * 2 + [b""] * 2)
  control = thinking_budget(texts, (5, 5), share=1.0)
  params = jax.jit(policy.init)(jax.random.key(0))
  return params, *(engine_of(policy, control=control, count_forced=x) for x in (False, True))


def test_forced_tokens_are_context_that_may_count(engines):
  params, context, counting = engines
  budget = dataclasses.replace(make_budget(12), target=np.arange(16, dtype=np.int32).reshape(B, G))
  given = make_rows(), budget, jax.random.key(2)
  r, counted = (jax.tree.map(np.asarray, e.generate(params, *given)) for e in (context, counting))
  assert r.forced.sum() == 2 * r.thinking_cut.sum() > 0
  assert not (r.forced & r.mask).any()
  assert not r.sampler_log_probs[r.forced].any()
  np.testing.assert_array_equal(r.drawn, r.mask)
  np.testing.assert_array_equal(r.lengths, r.mask.sum(-1))
  np.testing.assert_array_equal(r.counted, r.mask)
  np.testing.assert_array_equal(counted.lengths, r.written.sum(-1))
  np.testing.assert_array_equal(counted.counted, r.written)
  for name in ("tokens", "mask", "sampler_log_probs", "truncated", "end", "forced"):
    np.testing.assert_array_equal(getattr(counted, name), getattr(r, name))
  *_, last = context.stream(params, *given)
  jax.tree.map(np.testing.assert_array_equal, last.rollouts, r)
  # Budgets are data: other ones run the same program.
  programs_of = compiled(programs.generate, context.compiler)
  before = programs_of._cache_size()
  other = dataclasses.replace(budget, target=budget.target // 2)
  again = context.generate(params, given[0], other, given[2])
  assert again.thinking_cut.sum() > r.thinking_cut.sum()
  # So is the start of a response that has ended the thinking, here of every second one.
  rows = given[0]
  at, long = np.arange(rows.tokens.shape[-1]), rows.lengths[:, 0] > 1
  last = (at >= rows.lengths[..., None] - 2) & (at < rows.lengths[..., None])
  rows = dataclasses.replace(
    rows,
    tokens=np.where(last, 5, rows.tokens).astype(np.int32),
    forced=np.where([False, True], 2, np.zeros((B, G))).astype(np.int32),
  )
  cut = np.asarray(context.generate(params, rows, other, given[2]).thinking_cut)
  assert cut[long, 0].any()
  assert not cut[long, 1].any()
  assert programs_of._cache_size() == before


def test_a_revision_cuts_at_what_counts(engines):
  params, *both = engines
  for kept, engine in itertools.product((2, 5), both):
    given = make_rows(), make_budget(12), jax.random.key(2)
    r = engine.generate(
      params, *given[:1], dataclasses.replace(given[1], target=given[1].cap // 4), given[2]
    )
    short = jax.tree.map(np.asarray, cropped(r, jnp.full(r.lengths.shape, kept)))
    r = jax.tree.map(np.asarray, r)
    cut = r.lengths > kept
    assert cut.any()
    np.testing.assert_array_equal(short.lengths, np.minimum(r.lengths, kept))
    np.testing.assert_array_equal(short.counted.sum(-1), short.lengths)
    np.testing.assert_array_equal(short.end, np.where(cut, EndReason.REVISION, r.end))
    np.testing.assert_array_equal(short.truncated, r.truncated | cut)
    assert (short.forced.sum() < r.forced.sum()) == (kept < 5)


def test_budget_forcing_says_whom_it_cut():
  control = budget_forcing(3, max_thinking_tokens=2)
  state, cut = control.init(jnp.zeros((2, 1), jnp.int32), jnp.ones(2, jnp.int32)), []
  for sampled in ([4, 4], [4, 3], [4, 4]):
    state, *_ = control.take(state, None, jnp.array(sampled))
    cut.append(control.cut(state).tolist())
  assert cut == [[False, False], [False, False], [True, False]]


def test_a_share_of_the_target_is_rounded_down():
  draft = choices.thinking_budget(share=0.52, end_text="##")
  control = choices.finished(draft, VOCABULARY)
  targets = jnp.array([224, 225, 227])  # 116.5, 117 by less than a float32 has, 118.04
  state = control.init_asked(
    jnp.zeros((3, 1), jnp.int32),
    jnp.ones(3, jnp.int32),
    controls.Asked(targets, targets + 9, jnp.zeros(3, jnp.int32)),
  )
  assert state.limit.tolist() == [116, 117, 118]


def test_the_text_that_was_read_last_counts_whatever_follows():
  texts = automaton([b"stop", b"go"], [b"x", b"st", b"op", b"go"])
  assert [texts.read(ids) for ids in ([1, 2, 0], [3, 1, 2, 0], [1, 2, 3, 0])] == [1, 1, 2]


def test_of_a_budget_and_a_share_the_smaller_holds():
  control = choices.finished(choices.thinking_budget(5, share=0.5, end_text="##"), VOCABULARY)
  targets = jnp.array([4, 30])
  asked = controls.Asked(targets, targets + 40, jnp.zeros(2, jnp.int32))
  state = control.init_asked(jnp.zeros((2, 1), jnp.int32), jnp.ones(2, jnp.int32), asked)
  assert state.limit.tolist() == [2, 5]

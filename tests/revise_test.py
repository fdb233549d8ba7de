"""Revisions: what is cut, what is verified again, and what is only read."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.losses import policy as losses
from lcrl.losses.correction import truncated_importance
from lcrl.training.rl import pending, revise
from lcrl.types import Batch, TokenScores
from tests.helpers.revisions import played, revised
from tests.rollouts import random_rollouts


def test_an_outlier_of_a_solved_group_is_cut_and_verified_again():
  # lengths 3, 3, 3, 11: mean 5, deviation 4; cut at floor(5 + 0.5 * 4) = 7
  texts = [["08", "80", "88", "123456789 8"[:10]], ["00", "80", "88", "123456789."]]
  spec = dict(fn="cut_outliers", alpha=0.5, margin=2)
  before, after, now, asked = revised(spec, texts, references="88")
  assert before.lengths.tolist() == [[3, 3, 3, 11], [3, 3, 3, 11]]
  assert now == [["08", "80", "88", "1234567"], texts[1]]  # the second group is not solved
  assert asked == ["1234567"]
  assert after.correct.tolist() == [[True, True, True, False], [False, True, True, True]]
  assert after.truncated.tolist() == [[False, False, False, True], [False] * 4]
  kept = dataclasses.replace(after, correct=before.correct)
  for name in ("tokens", "budget", "prompt_ids", "correct"):
    jax.tree.map(np.testing.assert_array_equal, getattr(kept, name), getattr(before, name))


def test_a_cut_that_can_never_happen_is_refused():
  with pytest.raises(ValueError, match=r"revise\.alpha=3\.0 never cuts in groups of 4"):
    revised(dict(fn="cut_outliers"), [["8", "8", "8", "8"]])


def test_the_verdict_of_the_first_tokens():
  texts = [["8 ...", "11 8", "12345..."]]
  before, after, now, asked = revised(dict(fn="cut_to_target"), texts, target=3)
  assert now == [["8 ", "11 ", "123"]]
  assert asked == ["11 ", "123"]  # the first one was short enough
  assert after.correct.tolist() == [[True, False, False]]
  before, after, now, _ = revised(dict(fn="cut_to_target", keep_tail=True), texts, target=3)
  assert now == [["8 ", "11 8", "12345"]]
  assert after.correct.tolist() == [[True, False, False]]
  np.testing.assert_array_equal(after.mask, before.mask)


def test_an_easy_group_gets_the_shorter_cap():
  texts = [["08", "123458"], ["00", "12345..."]]
  spec = dict(fn="cut_to_tier", limits=(5, 3))
  _, after, now, asked = revised(spec, texts, references="88")
  assert now == [["08", "123"], ["00", "12345"]]
  assert asked == ["123"]
  assert after.budget.target.tolist() == after.budget.cap.tolist() == [[3, 3], [5, 5]]


def test_thinking_behind_the_answer_is_taken_out():
  spec = dict(fn="crop_thinking", extract="last_number", close="</t>")
  # 18 is no 8; a wrong answer and one without thinking stay
  texts = [["18 a 8, so 8 it is</t>8!", "no 7</t>7", "8", "x</t>8", "a8</t> 8..."]]
  before, after, now, asked = revised(spec, texts)
  assert now == [["18 a 8</t>8!", *texts[0][1:4], "a8</t> 8"]]
  assert asked == ["18 a 8</t>8!"]
  assert after.signals["needed"].tolist() == [[6, 0, 0, 0, 0]]
  assert after.signals["think_length"].tolist() == [[18, 4, 2, 1, 2]]
  assert after.correct.tolist() == before.correct.tolist() == [[True, False, True, True, True]]
  drawn = after.drawn[0, 0][after.mask[0, 0]]
  np.testing.assert_array_equal(drawn, [True] * 6 + [False] * 7)  # what moved was not drawn so
  np.testing.assert_array_equal(after.tokens[0, 1:], before.tokens[0, 1:])
  np.testing.assert_array_equal(after.mask[0, 1:], before.mask[0, 1:])


def test_the_value_of_an_episode_is_what_forced_answers_earn():
  """Right for sure where the 8 has been thought of, and else by chance: every second answer."""
  answers = iter("81" * 99)

  def say(row):
    assert row.endswith("</t>#")
    return next(answers)

  texts = [["a|b|8|c</t>8", "a|8</t>8", "8</t>1", "a|b|c|d"]]
  spec = dict(
    fn="force_answers", force="</t>#", cap=3, episodes=4, samples=2, close="</t>", separator="|"
  )
  before, after, _, asked = revised(spec, texts, say=say)
  jax.tree.map(np.testing.assert_array_equal, dataclasses.replace(after, signals={}), before)
  thoughts = [text.split("</t>")[0] for text in asked]
  assert all(t in texts[0][g // 2 % 4] for g, t in enumerate(thoughts))
  want = np.array([1 if "8" in t else 0.5 for t in thoughts[::2]]).reshape(2, 4)
  got = np.concatenate([after.signals["value_before"], after.signals["value_after"]])
  np.testing.assert_array_equal(got, want)
  ends = np.array([len(t) for t in thoughts[::2]]).reshape(2, 4)
  assert (ends[0] <= ends[1]).all()
  assert (ends[0] < ends[1]).any()


def test_dense_progress_stands_at_the_tokens_of_each_episode():
  """Forced answers are right for sure behind the 8, and every second time before it."""
  answers = iter("81" * 99)
  spec = dict(fn="force_answers", force="</t>#", cap=3, episodes=2, samples=2, close="</t>")
  spec |= dict(separator="|", dense=True)
  texts = [["a|8|c</t>8", "8|b</t>8", "a|b</t>1", "no piece"]]
  _, after, _, _ = revised(spec, texts, say=lambda row: next(answers))
  got = [x[m].tolist() for x, m in zip(after.signals["progress"][0], after.mask[0], strict=True)]
  # Of a|8|c the halves are a| and 8|c, of no piece nothing and all of it.
  assert [x[:2] for x in got] == [[0.0, 0.0], [0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]
  assert got[0][2:5] == [0.5] * 3
  assert got[1][2:3] == [0.0]
  for text, values in zip(texts[0], got, strict=True):
    thought = text.partition("</t>")[0]
    assert not any(values[len(thought) :]), "the answer got a bonus"
  assert not after.signals["progress"][~after.mask].any()


def test_borders_share_out_the_pieces():
  texts = [["a|bb|ccc|dddd|</t>8", "no piece", "a|b</t>"]]
  r, grader = played(texts)
  borders = [revise._borders(x, "</t>", "|", 2) for x in grader.responses(r)[0]]
  assert borders == [[0, 5, 14], [0, 0, 8], [0, 2, 3]]


def test_what_is_chosen_does_not_depend_on_where_rows_lie():
  _, grader = played([["8", "8"]] * 4, references="8888")
  whole = grader.random_index(1000)
  half = dataclasses.replace(grader.rows, index=grader.rows.index[2:], forced=np.zeros((2, 2)))
  part = types.SimpleNamespace(rows=half, key=grader.key, starts=grader.starts[2:])
  np.testing.assert_array_equal(type(grader).random_index(part, 1000), whole[2:])
  assert len(np.unique(whole)) > 4


def test_tokens_that_were_not_drawn_are_not_corrected():
  r = random_rollouts()
  ones = jnp.ones_like(r.lengths, jnp.float32)
  score = lambda r, log_probs, **loss: losses.clipped_surrogate(**loss).apply(
    (),
    TokenScores(log_probs),
    Batch(r, ones, r.valid, ones, r.mask * 1.0),
  )[0]
  forced = r.mask & (jnp.cumsum(r.mask, -1) == 1)
  moved = dataclasses.replace(r, undrawn=forced)
  np.testing.assert_array_equal(moved.drawn, r.mask & ~forced)
  twice = jnp.where(r.mask, r.sampler_log_probs + jnp.log(2.0), 0)  # ratios of 2, forced ones of 1
  got = score(moved, twice, correction=lambda *x: truncated_importance(*x, high=9.0))
  np.testing.assert_allclose(got, -(2 * (r.mask & ~forced).sum() + forced.sum()), rtol=1e-5)


def test_a_text_is_decoded_once():
  r, grader = played([["one 8", "8..."]])
  first = grader.responses(r)[0]
  again = grader.responses(jax.tree.map(np.copy, r))[0]
  assert all(x is y for x, y in zip(first, again, strict=True))
  short = revise.cut(r, np.array([[3, 9]]), grader)
  now = grader.responses(short)[0]
  assert [x.text for x in now] == ["one", "8"]
  assert now[1] is first[1]


def test_tokens_that_are_forced_at_the_end_are_read():
  r, grader = played([["so it is~ 8...", "so~ it is 8", "~8...", "9..."]])
  assert r.correct[0].tolist() == [True, True, True, False]
  assert r.lengths[0].tolist() == [8, 3, 0, 1]  # with the end token of the second
  read = grader.responses(r)[0]
  assert [x.text for x in read] == ["so it is 8", "so it is 8", "8", "9"]
  assert read[0].counts == [True] * 8 + [False] * 2
  short = revise.cut(r, np.array([[5, 9, 9, 9]]), grader)  # what was forced went with the rest
  assert grader.responses(short)[0][0].text == "so it"
  assert short.correct[0].tolist() == [False, True, True, False]


def test_a_log_prob_of_zero_was_drawn_and_an_older_state_still_says_what_was_not():
  r = random_rollouts()
  sure = dataclasses.replace(r, sampler_log_probs=jnp.zeros_like(r.sampler_log_probs))
  np.testing.assert_array_equal(sure.drawn, r.mask)
  forced = r.mask & (jnp.cumsum(r.mask, -1) == 1)
  old = dataclasses.replace(r, sampler_log_probs=jnp.where(forced, 0, r.sampler_log_probs))
  numbers = dict.fromkeys(("position", "rounds", "sampled", "trained", "seconds"), 0)
  rows = {k: v for k, v in vars(old).items() if k != "undrawn"} | {"budget": vars(r.budget)}
  got = pending.from_state({"rollouts": rows, "metrics": {}, **numbers}).rollouts
  np.testing.assert_array_equal(got.drawn, r.mask & ~forced)

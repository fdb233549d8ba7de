"""Signals: places count tokens that count, and what is read agrees with those who use it."""

import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcrl import advantages, budgets, filters, rewards, tasks
from lcrl.losses import policy as losses
from lcrl.registry import build
from lcrl.rewards.signals import phase_entropy
from lcrl.tasks.task import Prompt, Response, Task
from lcrl.training.rl.pipeline import Provider, RolloutPipeline
from lcrl.types import Recipe

RECIPE = Recipe(
  budgets.fixed(target=9),
  rewards.correctness(),
  filters.keep_all(),
  advantages.group_normalized(),
  losses.clipped_surrogate(),
)


def response(*pieces, forced=0, ended=True):
  """A token a piece, the first `forced` of which do not count; the last one ends it."""
  decode = lambda tokens: "".join(pieces[t] for t in tokens)
  tokens = list(range(len(pieces)))
  return Response(tokens, [t >= forced for t in tokens], ended, decode)


def read(spec, *pieces, **how):
  signals = build(tasks, spec, field="task.signals")
  found = signals.read(response(*pieces, **how))
  assert found.keys() == signals.dtypes.keys()
  return found


def test_thinking_ends_with_the_token_that_completes_the_tag():
  got = read(dict(fn="think_tags"), "on", "e </", "think>x", "</think>", ".")
  assert got == {"think_end": 2, "think_length": 3, "has_think": True}
  # Of a tag in several tokens the last one belongs to neither phase, the others to thinking.
  entropy = jnp.array([1.0, 2.0, 50.0, 5.0, 6.0])
  thinking, answer = phase_entropy(entropy, jnp.ones(5, bool), jnp.array(got["think_end"]))
  assert (thinking, answer) == (1.5, 5.5)


def test_without_an_end_all_is_thinking():
  got = read(dict(fn="think_tags"), "a", "b", "c", ended=False)
  assert got == {"think_end": -1, "think_length": 3, "has_think": False}


def test_a_tag_must_be_opened_before_it_is_closed():
  spec = dict(fn="think_tags", open="<t>", close="</t>")
  assert read(spec, "<t>", "a", "</t>", ".")["has_think"]
  assert not read(spec, "a", "</t>", "<t>", "</t>", ".")["has_think"]


def test_forced_tokens_that_do_not_count_have_no_place():
  pieces = "<think>", "budget", "a", "</think>", "b", "."
  assert read(dict(fn="think_tags"), *pieces)["think_end"] == 3
  got = read(dict(fn="think_tags", open="<think>"), *pieces, forced=2)
  assert got == {"think_end": 1, "think_length": 2, "has_think": True}


def test_the_answer_ends_where_it_can_be_read_for_good():
  pieces = "\\boxed{1}", " no ", "\\box", "ed{2", "} yes", "!", "."
  assert read(dict(fn="answer_span"), *pieces) == {"answer_length": 5, "has_answer": True}
  assert read(dict(fn="answer_span"), "1", "2", ".") == {"answer_length": 3, "has_answer": False}
  got = read(dict(fn="answer_span", extract="answer_tag"), "<answer>2", "</answer>", "x", ".")
  assert got["answer_length"] == 2


@pytest.mark.parametrize(
  "text, tag", [("[Easy] 1", 1), ("[hARD]", 2), (" [Easy]", 0), ("[Easy", 0), ("", 0)]
)
def test_the_tag_is_the_first_characters(text, tag):
  assert read(dict(fn="opening_tag"), text, ".") == {"tag": tag}


def test_several_signals_and_rules():
  spec = dict(
    fn="several",
    think=dict(fn="think_tags", close="#"),
    rules=dict(fn="patterns", two_lines=r"a\nb", digit="[0-9]"),
  )
  got = read(spec, "a\n", "b#", ".")
  assert got == {
    "think_end": 1,
    "think_length": 2,
    "has_think": True,
    "two_lines": True,
    "digit": False,
  }
  with pytest.raises(ValueError, match=r"task\.signals\.second supplies \['tag'\]"):
    build(
      tasks,
      dict(fn="several", first=dict(fn="opening_tag"), second=dict(fn="opening_tag")),
      field="task.signals",
    )


@given(st.lists(st.text("ab#", max_size=9), min_size=1, max_size=20), st.integers(-1, 60))
def test_guessing_finds_what_a_scan_finds(pieces, characters):
  got = response(*pieces, ended=False)
  written = [n for n in range(len(pieces) + 1) if len("".join(pieces[:n])) >= characters]
  assert got.tokens_to(characters) == min(written, default=len(pieces))


@pytest.mark.parametrize("lengths", [[1] * 2000 + [500] * 48, [3] * 2048])
def test_guesses_are_few(lengths):
  got, asked = response(*("a" * n for n in lengths)), []
  count = lambda tokens: asked.append(len(tokens)) or got.decode(tokens)
  dataclasses.replace(got, decode=count).tokens_to(len(got.text) // 2)
  assert len(asked) < 2 * 11


def pipeline(signals=None, providers=(), rows=8):
  prompts = [Prompt(i, (), None) for i in range(rows)]
  task = Task("t", prompts, score=None, signals=signals)
  return RolloutPipeline(types.SimpleNamespace(task=task), providers=providers)


def test_a_signal_that_nothing_supplies_is_refused_by_name():
  pear = RECIPE._replace(reward=rewards.pear())
  tags = tasks.think_tags()
  with pytest.raises(ValueError, match=r"reward needs \['entropy', 'think_end'\], which nothing"):
    pipeline().check(pear)
  with pytest.raises(ValueError, match=r"reward needs \['entropy'\], which nothing here supplies"):
    pipeline(tags).check(pear)
  pipeline(tags, [Provider(("entropy",), None)]).check(pear)


def test_a_state_with_fewer_rows_than_the_data_set_is_refused():
  hapo = rewards.soft_overlong(max_length=8, buffer=4, base=rewards.hapo(rows=7))
  for reward in (hapo, rewards.length_dual(target=4, base=hapo)):
    recipe = RECIPE._replace(reward=reward)
    with pytest.raises(ValueError, match=r"reward\.rows is 7, but the data set has 8 rows"):
      pipeline(rows=8).check(recipe)
    pipeline(rows=7).check(recipe)


def test_signals_pad_by_token_and_by_nothing_else():
  from lcrl.training.rl.collect import pad_rows
  from tests.rollouts import random_rollouts

  r = random_rollouts(length=4)
  signals = {"flag": jnp.ones((4, 4), bool), "entropy": jnp.ones((4, 4, 4)), "step": jnp.ones(4)}
  r.signals.update(signals)
  got = pad_rows(r, 6).signals
  assert {name: x.shape for name, x in got.items()} == {
    "flag": (4, 4),
    "entropy": (4, 4, 6),
    "step": (4,),
  }
  assert not np.asarray(got["entropy"])[..., 4:].any()

"""Prompts over the limit are found before the first step: refused by row, or left out."""

import functools

import pytest

from lcrl.data import prompts as stream_of
from lcrl.data.choosing import first, rows
from lcrl.data.lengths import Fitting, counted_prefix, fitting
from lcrl.data.tokenizers import utf8
from lcrl.tasks.render import prefix, suffix
from lcrl.tasks.sums import score
from lcrl.tasks.task import Prompt, Task, plain

WORDS = utf8()  # a token a byte, and a line feed behind every message


def task(sizes, render=plain, lazy=False):
  made = [Prompt(i, ({"role": "user", "content": "x" * n},), "") for i, n in enumerate(sizes)]
  return Task("words", Lazy(made) if lazy else made, score, render=render)


class Lazy:
  def __init__(self, made):
    self.made = made

  def __len__(self):
    return len(self.made)

  def __getitem__(self, index):
    return self.made[index]


fit = functools.partial(fitting, tokenizer=WORDS, most=100)


def test_rows_are_named_and_the_limit_is_exact():
  assert fit(task([9, 9]), limit=10).prompts[1].id == 1
  with pytest.raises(
    ValueError,
    match=r"eval_task: 2 of 3 prompts are longer than train\.max_prompt_tokens=9: row 1 \(10 "
    r"tokens\), 2 \(12 tokens\); the longest has 12 tokens\. eval_task\.long='skip'",
  ):
    fit(task([8, 9, 11]), limit=9, field="eval_task")


def test_what_is_skipped_is_counted_and_keeps_the_ids(caplog):
  found = fit(task([3, 50, 4, 60, 5]), limit=9, long="skip")
  assert [p.id for p in found.prompts] == [0, 2, 4]
  assert rows(found.prompts) == 5, "states have a row for each id"
  assert "task: 2 of 5 prompts are too long" in caplog.text
  with pytest.raises(ValueError, match=r"2 of 2 prompts .* None is left"):
    fit(task([50, 60]), limit=9, long="skip")


@pytest.mark.parametrize(
  "render, longest",
  [
    (suffix(" {target}"), 4),
    (suffix(["", " at length"]), 10),
    (prefix("at most {target}: "), 13),
    (prefix("ab", counts=True), 2),
  ],
)
def test_a_prompt_counts_as_its_longest_budget_shows_it(render, longest):
  fit(task([9], render), limit=10 + longest)
  with pytest.raises(ValueError, match=rf"row 0 \({10 + longest} tokens\)"):
    fit(task([9], render), limit=9 + longest)


def test_lazy_prompts_give_way_to_the_next_that_fits():
  sizes = [5] * 200
  for i in (150, 151, 199):
    sizes[i] = 50
  found = fit(task(sizes, lazy=True), limit=9)
  assert isinstance(found.prompts, Fitting)
  assert [found.prompts[i].id for i in (149, 150, 151, 152, 199)] == [149, 152, 152, 152, 0]
  stream = stream_of(found, seed=3)
  again = stream_of(fit(task(sizes, lazy=True), limit=9), seed=3)
  ids = lambda s: [s[i].id for i in range(600)]
  assert ids(stream) == ids(again)
  assert {150, 151, 199}.isdisjoint(ids(stream))
  assert [p.id for p in first(found.prompts, 300)] == [i for i in range(200) if sizes[i] == 5]
  with pytest.raises(ValueError, match="1 of 128 prompts are longer"):
    fit(task([50] + [5] * 200, lazy=True), limit=9)
  assert fit(task([50] + [5] * 200, lazy=True), limit=9, long="skip").prompts[0].id == 1


def test_a_small_lazy_set_is_looked_at_whole_and_a_large_one_warns_seldom(caplog):
  assert [p.id for p in fit(task([50, 5, 60, 5], lazy=True), limit=9, long="skip").prompts] == [
    1,
    3,
  ]
  assert len(caplog.records) == 1
  found = fit(task([5] * 150 + [50] * 100, lazy=True), limit=9)
  assert [found.prompts[i].id for i in range(150, 250)] == [0] * 100
  assert [r.args[-1] for r in caplog.records[1:]] == [1, 2, 4, 8, 16, 32, 64]


def test_only_prompts_that_might_be_too_long_are_encoded():
  class Counting:
    pad_id, end_ids = 0, (1,)

    def __init__(self):
      self.texts = []

    def encode(self, text):
      self.texts.append(text)
      return WORDS.encode(text)

    render = staticmethod(WORDS.render)

  words = Counting()
  fitting(task([5] * 500 + [40]), words, limit=60, most=10)
  assert len(words.texts) <= 3


def test_prefix_that_counts():
  assert counted_prefix(task([1], prefix("abc", counts=True)), WORDS, 9, 0) == 3
  assert counted_prefix(task([1], prefix("abc")), WORDS, 9, 0) == 0

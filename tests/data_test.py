"""One integer addresses the data; rows are what the tokenizer says, and nothing is cut silently."""

import dataclasses

import jax
import numpy as np
import pytest

from lcrl import data
from lcrl.tasks.task import Prompt, Rendered, Task
from lcrl.types import Budget


class Letters:
  """A tokenizer of characters."""

  pad_id = 0
  end_ids = (1,)

  def encode(self, text):
    return [ord(c) for c in text]

  def render(self, messages):
    return "".join(f"<{m['content']}>" for m in messages)


def ask(text: str):
  return ({"role": "user", "content": text},)


def make_task(size=7, **changes) -> Task:
  prompts = [Prompt(i, ask("q" * (i + 1)), None, difficulty=i % 3) for i in range(size)]
  return dataclasses.replace(Task("letters", prompts, lambda response, _: 0.0), **changes)


def budget(shape, target=5, level=0) -> Budget:
  fill = lambda value: np.full(shape, value, np.int32)
  return Budget(target=fill(target), cap=fill(8), level=fill(level))


def test_a_position_is_a_prompt():
  task = make_task()
  stream, again = data.prompts(task, seed=1), data.prompts(task, seed=1)
  passes = np.array([stream[i].id for i in range(21)]).reshape(3, 7)
  assert [again[i].id for i in reversed(range(21))][::-1] == passes.ravel().tolist()
  assert (np.sort(passes, axis=1) == np.arange(7)[None]).all()
  assert len({tuple(p) for p in passes.tolist()}) == 3, "each pass has its own order"
  assert [data.prompts(task, seed=2)[i].id for i in range(7)] != passes[0].tolist()
  in_order = data.prompts(task, seed=1, shuffle=False)
  assert [in_order[i].id for i in range(9)] == [*range(7), 0, 1]


def test_no_prompts():
  with pytest.raises(ValueError, match="letters has no prompts"):
    data.prompts(make_task(0), seed=0)


def step_rows(position: int, count: int, part: slice):
  """The rows of one step that `part` of its prompts make."""
  task = make_task()
  stream, index = data.prompts(task, seed=1), np.arange(position, position + count)
  prompts = [stream[int(i)] for i in index]
  asked = jax.tree.map(lambda x: x[part], budget((count, 2)))
  return data.render_rows(task, Letters(), prompts[part], asked, index[part], limit=12)


def test_processes_share_a_step():
  whole = step_rows(5, 4, slice(None))
  halves = [step_rows(5, 4, part) for part in (slice(0, 2), slice(2, 4))]
  jax.tree.map(
    lambda a, b, c: np.testing.assert_array_equal(np.concatenate([a, b]), c), *halves, whole
  )
  assert whole.index.tolist() == [5, 6, 7, 8]


def test_rows():
  task = make_task()
  prompts = [task.prompts[2], task.prompts[0]]
  rows = data.render_rows(task, Letters(), prompts, budget((2, 3)), [9, 4], limit=6)
  text = ["<qqq>\0", "<q>\0\0\0"]
  assert rows.tokens.tolist() == [[[ord(c) for c in t]] * 3 for t in text]
  assert rows.lengths.tolist() == [[5] * 3, [3] * 3]
  assert rows.forced.tolist() == [[0] * 3] * 2
  assert (rows.index.tolist(), rows.prompt_ids.tolist()) == ([9, 4], [2, 0])
  assert rows.difficulty.tolist() == [2, 0]
  assert rows.train_tokens is None
  assert {x.dtype for x in jax.tree.leaves(rows)} == {np.dtype(np.int32)}


def test_rows_follow_target_and_level():
  def render(prompt, target, level):
    return Rendered(ask(f"{target}"), "ab" * level, train_messages=ask("t") if level else None)

  asked = Budget(np.array([[3, 40]]), np.array([[8, 8]]), np.array([[0, 1]]))
  task = make_task(render=render)
  rows = data.render_rows(task, Letters(), [task.prompts[0]], asked, [0], limit=6)
  read = lambda tokens, lengths: [
    "".join(map(chr, row[:n])) for row, n in zip(tokens[0], lengths[0], strict=True)
  ]
  assert read(rows.tokens, rows.lengths) == ["<3>", "<40>ab"]
  assert rows.forced.tolist() == [[0, 2]]
  assert read(rows.train_tokens, rows.train_lengths) == ["<3>", "<t>ab"]


def test_a_long_prompt_is_named():
  task = make_task()
  with pytest.raises(ValueError, match=r"Prompt 5 has 8 tokens; the limit is 7\."):
    data.render_rows(task, Letters(), [task.prompts[5]], budget((1, 2)), [0], limit=7)


def test_mismatched_shapes_are_named():
  task = make_task()
  with pytest.raises(ValueError, match=r"1 prompts, 2 indices and budgets of \(1, 2\)"):
    data.render_rows(task, Letters(), [task.prompts[0]], budget((1, 2)), [0, 1], limit=7)


def test_sft_rows():
  task = make_task()
  tokens, mask = data.sft_rows(Letters(), [(task.prompts[0], "ab"), (task.prompts[1], "")], limit=7)
  assert tokens.tolist() == [[*map(ord, "<q>ab"), 1, 0], [*map(ord, "<qq>"), 1, 0, 0]]
  assert mask.astype(int).tolist() == [[0, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 0, 0]]


class Modes(Letters):
  """Its template has a variable, and it knows how answers end."""

  def render(self, messages, *, think=True):
    return super().render(messages) + "t" * think

  def answer(self, text):
    return [*self.encode(text), 2]


def test_variables_of_the_task_reach_the_template():
  task = make_task(variables={"think": False})
  for used, text in ((task, "<q>"), (make_task(), "<q>t")):
    rows = data.render_rows(used, Modes(), [task.prompts[0]], budget((1, 2)), [0], limit=4)
    assert "".join(map(chr, rows.tokens[0, 1, : rows.lengths[0, 1]])) == text


def test_a_tokenizer_says_how_an_answer_ends():
  tokens, _ = data.sft_rows(Modes(), [(make_task().prompts[0], "ab")], limit=7)
  assert tokens.tolist() == [[*map(ord, "<q>tab"), 2]]

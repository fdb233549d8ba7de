"""The arithmetic testbed as pure functions of arrays; `lcrl.tasks.sums` describes the text.

One problem at a time, for `jit`, `vmap` and `scan`: with the sampler and the two phases of a step
a whole study is one program. `arithmetic` gives the same problems as text to the host's loop.
K operands at most, P prompt tokens, N response tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lcrl.tasks.sums import ANSWER, ASK, END, EQUALS, LABEL, PAD, PLUS, ZERO, Sums, score
from lcrl.tasks.task import Prompt, Render, Signals, Task, plain
from lcrl.types import Outcome

__all__ = [
  "Problem",
  "answer",
  "arithmetic",
  "demonstration",
  "draw",
  "is_held_out",
  "prompt",
  "rows",
  "verify",
]


class Problem(NamedTuple):
  """A sum of `difficulty` operands, modulo a power of ten."""

  operands: jax.Array  # [K] int32, 0 beyond the first `difficulty`
  difficulty: jax.Array  # [] int32, number of operands


def draw(sums: Sums, key: jax.Array, *, held_out: bool = False) -> Problem:
  """A random problem of uniform difficulty, from the training side or from the held-out side.

  >>> problem = draw(Sums(), jax.random.key(0))
  >>> problem.operands.shape, bool(is_held_out(problem))
  ((4,), False)
  """
  count_key, key = jax.random.split(key)
  difficulty = jax.random.randint(count_key, (), sums.fewest, sums.most + 1)
  used = jnp.arange(sums.most) < difficulty

  def candidate(key):
    operands = jax.random.randint(key, (sums.most,), 0, 10**sums.digits)
    return Problem(jnp.where(used, operands, 0), difficulty)

  def retry(carry):
    key, _ = jax.random.split(carry[0])
    return key, candidate(key)

  def on_the_wrong_side(carry):
    return is_held_out(carry[1]) != held_out

  return jax.lax.while_loop(on_the_wrong_side, retry, (key, candidate(key)))[1]


def rows(sums: Sums, ids: jax.Array, *, seed: int | jax.Array, held_out: bool = False) -> Problem:
  """Rows `ids` [B] of an endless data set, independent of other draws: leaves [B, ...]."""
  keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(ids)
  return jax.vmap(functools.partial(draw, sums, held_out=held_out))(keys)


def is_held_out(problem: Problem) -> jax.Array:
  """A fixed quarter of all problems, by a hash. -> [] bool.

  >>> [bool(is_held_out(draw(Sums(), jax.random.key(i), held_out=True))) for i in range(2)]
  [True, True]
  """
  digest = problem.difficulty.astype(jnp.uint32)
  for operand in problem.operands.astype(jnp.uint32):
    digest = (digest ^ operand) * jnp.uint32(0x9E3779B1)  # wraps
    digest ^= digest >> 15
  return digest % 4 == 0


def answer(sums: Sums, problem: Problem) -> jax.Array:
  """The sum of the operands, modulo 10**digits. -> [] int32.

  >>> print(answer(Sums(), Problem(jnp.array([3, 5, 9, 0]), jnp.array(3))))
  7
  """
  total = jnp.sum(problem.operands)
  return total if sums.modulus is None else total % sums.modulus


def prompt(sums: Sums, problem: Problem) -> tuple[jax.Array, jax.Array]:
  """Tokens [P], padded on the right, and their number []."""
  index = jnp.arange(sums.most)
  pieces = jnp.concatenate([LABEL + index[:, None], _write(problem.operands, sums.digits)], axis=1)
  used = (index < problem.difficulty)[:, None]
  return _packed(*_joined((pieces, used), (jnp.array([ASK]), True)), sums.prompt_length)


def demonstration(
  sums: Sums,
  key: jax.Array,
  problem: Problem,
  *,
  recheck: float | jax.Array,
  sizes: Sequence[float] | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """A correct response, usually longer than necessary: tokens [N], and their number [].

  Args:
    sums: the family of the problem.
    key: for steps and re-checks.
    problem: the problem to solve.
    recheck: chance that a step is repeated.
    sizes: a step takes i + 1 operands, or the rest, with a chance proportional to sizes[i].
  """
  if len(sizes) != sums.per_step:
    raise ValueError(f"sizes must have per_step={sums.per_step} entries, got {sizes}.")
  offsets = jnp.arange(sums.per_step)

  def step(carry, key):
    done, value = carry
    size_key, again_key = jax.random.split(key)
    size = 1 + jax.random.categorical(size_key, jnp.log(jnp.array(sizes)))
    index = done + offsets
    used = (offsets < size) & (index < problem.difficulty)
    operands = jnp.where(used, problem.operands.at[index].get(mode="clip"), 0)
    new = answer(sums, Problem(jnp.append(operands, value), size))
    terms = jnp.concatenate([jnp.full((sums.per_step, 1), PLUS), _write(operands, sums.digits)], 1)
    tokens, present = _joined(
      (jnp.append(LABEL + done, _write(value, sums.width)), True),
      (terms, used[:, None]),
      (jnp.append(EQUALS, _write(new, sums.width)), True),
    )
    present &= done < problem.difficulty
    again = present & jax.random.bernoulli(again_key, recheck)
    return (done + size, new), (jnp.stack([tokens, tokens]), jnp.stack([present, again]))

  keys = jax.random.split(key, sums.most)
  (_, value), steps = jax.lax.scan(step, (jnp.int32(0), jnp.int32(0)), keys)
  ending = jnp.concatenate([jnp.array([ANSWER]), _write(value, sums.width), jnp.array([END])])
  return _packed(*_joined(steps, (ending, True)), sums.response_length)


def verify(sums: Sums, tokens: jax.Array, length: jax.Array, reference: jax.Array) -> jax.Array:
  """`sums.score` as a function of tokens: [N], [], [] -> [] int8, an Outcome.

  A response without an end token, cut at its cap, is scored like others.

  >>> tokens = jnp.array(Sums().encode("a0+3+5=8#8."))
  >>> verify(Sums(), tokens, jnp.array(11), jnp.array(8)) == Outcome.OK
  Array(True, dtype=bool)
  """
  length = length - (tokens[length - 1] == END)
  at = length - sums.width - 1
  span = tokens.at[at + jnp.arange(sums.width + 1)].get(mode="clip")
  digits = span[1:] - ZERO
  formed = (at >= 0) & (span[0] == ANSWER) & jnp.all((digits >= 0) & (digits < 10))
  value = jnp.sum(digits * 10 ** jnp.arange(sums.width - 1, -1, -1))
  verdict = jnp.where(value == reference, Outcome.OK, Outcome.WRONG)
  return jnp.where(formed, verdict, Outcome.BAD_FORMAT).astype(jnp.int8)


def _write(values: jax.Array, width: int) -> jax.Array:
  """[...] int -> [..., width] tokens of its digits, the most significant first."""
  powers = [10**i for i in reversed(range(width))]
  return ZERO + jnp.stack([values // power % 10 for power in powers], axis=-1)


def _joined(*parts: tuple[jax.Array, jax.Array | bool]) -> tuple[jax.Array, jax.Array]:
  """(tokens, which of them are present) of all parts in order, [M] each."""
  tokens = [tokens.ravel() for tokens, _ in parts]
  present = [
    jnp.broadcast_to(jnp.asarray(present), tokens.shape).ravel() for tokens, present in parts
  ]
  return jnp.concatenate(tokens), jnp.concatenate(present)


def _packed(tokens: jax.Array, present: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
  """The tokens that are present, in order and without gaps, [size], and their number []."""
  position = jnp.where(present, jnp.cumsum(present) - 1, size)
  packed = jnp.full((size,), PAD, jnp.int32).at[position].set(tokens, mode="drop")
  return packed, jnp.sum(present)


class _Prompts:
  """Rows 0 to size - 1 of the data set, as text."""

  def __init__(self, sums: Sums, size: int, seed: int, held_out: bool):
    problems = rows(sums, jnp.arange(size), seed=seed, held_out=held_out)
    answers = jax.vmap(functools.partial(answer, sums))(problems)
    tokens, lengths = jax.vmap(functools.partial(prompt, sums))(problems)
    self._sums = sums
    self._columns = [np.asarray(x) for x in (tokens, lengths, answers, problems.difficulty)]

  def __len__(self) -> int:
    return len(self._columns[0])

  def __getitem__(self, index: int) -> Prompt:
    tokens, length, answer, count = (column[index] for column in self._columns)
    text = self._sums.decode(tokens[:length].tolist())
    return Prompt(int(index), ({"role": "user", "content": text},), int(answer), int(count))


def arithmetic(
  *,
  fewest: int = 2,
  most: int = 4,
  digits: int = 1,
  modulus: int | None = 10,
  per_step: int = 3,
  size: int = 8192,
  seed: int = 0,
  held_out: bool = False,
  render: Render = plain,
  signals: Signals | None = None,
) -> Task:
  """Sums as a task; the fields of `Sums` are its tokenizer's, too.

  Args:
    fewest, most, digits, modulus, per_step: the family, as in `Sums`.
    size: rows of the data set; problems may repeat.
    seed: of the data set.
    held_out: rows from the quarter of all problems that are never trained on.
    render: shows the budget in the prompt or response (`lcrl.tasks.render`).
    signals: values read from responses (`lcrl.tasks.signals`).

  >>> prompt = arithmetic(size=1).prompts[0]
  >>> prompt.messages[0]["content"], prompt.reference, prompt.difficulty
  ('a8b9?', 7, 2)
  """
  if size < 1:
    raise ValueError(f"size must be at least 1, got {size}.")
  sums = Sums(fewest, most, digits, modulus, per_step)
  prompts = _Prompts(sums, size, seed, held_out)
  scorer = functools.partial(score, width=sums.width)
  return Task("arithmetic", prompts, scorer, render=render, signals=signals)

"""The testbed: what a working is, who judges it, and that its shortest length is the shortest."""

import itertools
import pickle
import re
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcrl.tasks import arithmetic as make_task
from lcrl.tasks.arithmetic import answer, demonstration, draw, is_held_out, prompt, rows, verify
from lcrl.tasks.sums import END, Sums, score
from lcrl.tasks.task import BadFormat
from lcrl.types import Outcome

FAMILIES = [Sums(), Sums(fewest=1, most=5, digits=2, modulus=None, per_step=2), Sums(2, 3, 1, 7, 1)]
EVEN = {family: (1.0,) * family.per_step for family in FAMILIES}


@partial(jax.jit, static_argnums=(0, 2, 3))
def shown(sums, seed, recheck, sizes):
  """A problem as text, its answer, and a demonstration: tokens and length."""
  problem_key, key = jax.random.split(jax.random.key(seed))
  problem = draw(sums, problem_key)
  told = demonstration(sums, key, problem, recheck=recheck, sizes=sizes)
  return problem, prompt(sums, problem), answer(sums, problem), told


def text_of(sums, tokens, length):
  return sums.decode(np.asarray(tokens)[: int(length)].tolist())


def read(sums, question, response):
  """Reads a working as a person would: checks every step, and returns (answer, steps)."""
  number, value = f"[0-9]{{{sums.digits}}}", f"[0-9]{{{sums.width}}}"
  operands = re.findall(f"([a-z])({number})", question)
  assert question == "".join(label + digits for label, digits in operands) + "?"
  step = f"([a-z])({value})((?:\\+{number})+)=({value})"
  assert re.fullmatch(f"(?:{step})*#{value}\\.", response), response
  running, done, last, steps = 0, 0, None, re.findall(step, response)
  for label, before, terms, after in steps:
    now = (label, before, terms, after)
    if now == last:
      last = None  # a re-check, once
      continue
    taken = [int(x) for x in terms[1:].split("+")]
    assert label == operands[done][0]
    assert int(before) == running
    assert taken == [int(x) for _, x in operands[done : done + len(taken)]]
    assert 1 <= len(taken) <= sums.per_step
    running += sum(taken)
    running = running if sums.modulus is None else running % sums.modulus
    assert int(after) == running
    done, last = done + len(taken), now
  assert done == len(operands)
  return running, len(steps)


@pytest.mark.parametrize("sums", FAMILIES)
def test_demonstrations_are_workings(sums):
  twice = 0
  for seed in range(40):
    problem, question, right, (tokens, length) = shown(sums, seed, 0.5, EVEN[sums])
    response = text_of(sums, tokens, length)
    found, steps = read(sums, text_of(sums, *question), response)
    assert found == int(right) == int(re.search("#([0-9]+)", response)[1])
    assert int(length) >= sums.shortest_length(int(problem.difficulty))
    assert np.all(np.asarray(tokens)[int(length) :] == sums.pad_id)
    twice += steps > int(problem.difficulty)
  assert twice  # re-checks happen


@pytest.mark.parametrize("sums", FAMILIES)
def test_the_shortest_length_is_the_shortest(sums):
  def length(parts):  # of a working whose steps take so many operands
    return len("".join(f"a{'0' * sums.width}{('+' + '0' * sums.digits) * k}=" for k in parts)) + (
      sums.width * len(parts) + len("#.") + sums.width
    )

  for n in range(sums.fewest, sums.most + 1):
    ways = itertools.product(range(sums.per_step + 1), repeat=n)
    best = min(length([k for k in way if k]) for way in ways if sum(way) == n)
    assert sums.shortest_length(n) == best
  only_full_steps = (*[0.0] * (sums.per_step - 1), 1.0)
  for seed in range(10):
    problem, *_, (_, length) = shown(sums, seed, 0.0, only_full_steps)
    assert int(length) == sums.shortest_length(int(problem.difficulty))


def test_the_longest_demonstration_fits():
  # One operand a step, each twice: 4 * 2 * len("a0+3=3") + len("#3.") = 51.
  lengths = [int(shown(Sums(), seed, 1.0, (1.0, 0.0, 0.0))[3][1]) for seed in range(20)]
  assert max(lengths) == Sums().response_length == 51


def judged(sums, tokens, right):
  """The outcome as the host sees it: text without the end token."""
  ended = tokens[-1] == END
  try:
    value = score(sums.decode(tokens[:-1] if ended else tokens), right, width=sums.width)
  except BadFormat:
    return Outcome.BAD_FORMAT
  return Outcome.OK if value >= 1 else Outcome.WRONG


@st.composite
def responses(draw):
  """Workings, right or damaged at the places where it matters, and noise."""
  sums = draw(st.sampled_from(FAMILIES))
  token = st.integers(0, len(sums.symbols) - 1)
  if draw(st.booleans()):
    tokens = draw(st.lists(token, min_size=1, max_size=sums.response_length))
    return sums, tokens, draw(st.integers(0, 10**sums.width - 1))
  *_, right, (tokens, length) = shown(sums, draw(st.integers(0, 99)), 0.5, EVEN[sums])
  tokens = np.asarray(tokens)[: int(length)].tolist()
  for _ in range(draw(st.integers(0, 2))):
    at = draw(st.integers(max(-6, -len(tokens)), -1))
    change = draw(st.sampled_from(["replace", "delete", "insert"]))
    piece = [] if change == "delete" else [draw(token)]
    tokens[at : len(tokens) + at + (change != "insert")] = piece
  return sums, (tokens or [END])[: sums.response_length], int(right)


@settings(max_examples=300, deadline=None)
@given(responses())
def test_both_verifiers_agree(response):
  sums, tokens, right = response
  row = np.full(sums.response_length, END, np.int32)  # what stands behind the response is not read
  row[: len(tokens)] = tokens
  check = jax.jit(verify, static_argnums=0)
  got = check(sums, jnp.array(row), jnp.int32(len(tokens)), jnp.int32(right))
  assert got.dtype == jnp.int8
  assert Outcome(int(got)) == judged(sums, tokens, right)


@pytest.mark.parametrize(
  "text, outcome",
  [
    ("a0+3+5=8#8.", Outcome.OK),
    ("a0+3+5=8#8", Outcome.OK),  # cut after the answer
    ("#8.", Outcome.OK),  # the working is not judged
    ("a0+3+5=9#8.", Outcome.OK),
    ("#3#8.", Outcome.OK),  # the last one counts
    ("a0+3+5=8#9.", Outcome.WRONG),
    ("a0+3+5=8.", Outcome.BAD_FORMAT),
    ("#.", Outcome.BAD_FORMAT),
    ("#88.", Outcome.BAD_FORMAT),
    ("8.", Outcome.BAD_FORMAT),
    (".", Outcome.BAD_FORMAT),
    ("#8_", Outcome.BAD_FORMAT),
  ],
)
def test_verdicts(text, outcome):
  tokens = Sums().encode(text)
  assert judged(Sums(), tokens, 8) == outcome
  got = verify(Sums(), jnp.array(tokens), jnp.int32(len(tokens)), jnp.int32(8))
  assert Outcome(int(got)) == outcome


def test_no_problem_is_on_both_sides():
  sums, ids = Sums(), jnp.arange(3000)
  sides = [rows(sums, ids, seed=0, held_out=held_out) for held_out in (False, True)]
  kinds = [{(*map(int, o), int(n)) for o, n in zip(*side, strict=True)} for side in sides]
  assert len(kinds[0]) > 1000
  assert len(kinds[1]) > 500
  assert not kinds[0] & kinds[1]
  for side in sides:  # every difficulty, about equally often
    counts = np.bincount(side.difficulty)[sums.fewest :]
    assert counts.min() > 900
  pairs = jnp.stack(jnp.divmod(jnp.arange(100), 10) + (jnp.zeros(100, int),) * 2, axis=-1)
  side = jax.vmap(is_held_out)(type(sides[0])(pairs, jnp.full(100, 2)))
  assert 0.15 < side.mean() < 0.35  # a quarter


def test_the_task_shows_the_same_problems_as_text():
  sums, task = Sums(), make_task(size=20, seed=7, held_out=True)
  problems = rows(sums, jnp.arange(20), seed=7, held_out=True)
  assert len(task.prompts) == 20
  for i in range(20):
    problem = jax.tree.map(lambda x, i=i: x[i], problems)
    shown = task.prompts[i]
    assert sums.render(shown.messages) == text_of(sums, *prompt(sums, problem))
    assert shown.reference == int(answer(sums, problem))
    assert (shown.id, shown.difficulty) == (i, int(problem.difficulty))
  scorer = pickle.loads(pickle.dumps(task.score))
  assert scorer(f"#{task.prompts[0].reference}", task.prompts[0].reference) == task.threshold


@given(st.text(Sums().symbols))
def test_text_survives_its_tokens(text):
  assert Sums().decode(Sums().encode(text)) == text


def test_the_scorer_needs_no_jax():
  code = """
import sys, types, lcrl_path
for name in ("lcrl", "lcrl.tasks"):  # as in a verifier's worker: without what the packages import
  sys.modules[name] = types.ModuleType(name)
  sys.modules[name].__path__ = [lcrl_path.of[name]]
from lcrl.tasks.sums import score
assert score("#8", 8, width=1) == 1.0 and "jax" not in sys.modules
"""
  folder = next(iter(sys.modules["lcrl"].__path__))
  paths = {"lcrl": folder, "lcrl.tasks": f"{folder}/tasks"}
  code = code.replace(", lcrl_path", "").replace("lcrl_path.of", repr(paths))
  subprocess.run([sys.executable, "-I", "-c", code], check=True)


@pytest.mark.parametrize(
  "fields, word",
  [
    ({"fewest": 0}, "got 0"),
    ({"fewest": 5}, "got 5"),
    ({"most": 27}, "27"),
    ({"digits": 0}, "got 0"),
    ({"digits": 9}, "got 9"),
    ({"modulus": 1}, "got 1"),
    ({"per_step": 0}, "got 0"),
  ],
)
def test_bad_families_are_refused(fields, word):
  with pytest.raises(ValueError, match=word):
    Sums(**fields)


def test_other_bad_input_is_named():
  with pytest.raises(ValueError, match="'!x'"):
    Sums().encode("a3x!?")
  with pytest.raises(ValueError, match="size must be at least 1, got 0"):
    make_task(size=0)
  with pytest.raises(ValueError, match="per_step=3"):
    shown(Sums(), 0, 0.5, (1.0,))

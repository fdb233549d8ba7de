"""The allow-list holds for the installed package; problems and scores are the package's own."""

import ast
import inspect
import pickle
import sys
import textwrap
import time
import types
from typing import Any

import pytest
import reasoning_gym as package

from lcrl import tasks
from lcrl.registry import build
from lcrl.tasks import reasoning_gym
from lcrl.tasks.reasoning_gym import ALLOWED
from lcrl.tasks.task import BadFormat

DATASETS = {name: cls for name, (cls, _) in package.factory.DATASETS.items()}
EVALUATING = {
  *("binary_matrix", "bitwise_arithmetic", "countdown", "intermediate_integration", "n_queens"),
  *("number_sorting", "polynomial_multiplication", "puzzle24", "simple_integration"),
  *("spiral_matrix", "string_insertion"),
}
FORBIDDEN = {
  *("eval", "exec", "compile", "literal_eval", "parse_expr", "sympify", "__import__", "getattr"),
  *("import_module", "system", "popen", "Popen", "pickle", "globals", "locals", "open", "input"),
}
HARMLESS = {  # the only modules, besides the package's own, that a clean scorer may touch
  *("abc", "builtins", "calendar", "collections", "copy", "dataclasses", "datetime", "decimal"),
  *("difflib", "enum", "fractions", "functools", "itertools", "json", "logging", "math"),
  *("operator", "random", "re", "string", "typing"),
}


def suspicions(cls: Any) -> set[str]:
  """What stands against the scorer of a data set, in all code that can be reached from it."""
  pending, seen, found = [cls.score_answer], set(), set()
  while pending:
    code = pending.pop()
    if code in seen:
      continue
    seen.add(code)
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(code)))):
      reached, doubts = judge(node, vars(sys.modules[code.__module__]), cls)
      pending += [thing for thing in reached if inspect.isfunction(thing) or inspect.isclass(thing)]
      found |= doubts
  return found


def judge(node: ast.AST, names: dict, cls: type) -> tuple[list, set[str]]:
  """(functions and classes of the package that a node names, doubts about it)."""
  if isinstance(node, (ast.Import, ast.ImportFrom)):
    return [], {ast.unparse(node)}
  if isinstance(node, ast.Attribute):
    name, owner = node.attr, ast.unparse(node.value)
    thing = inspect.getattr_static(cls, name, None) if owner != "super()" else None
    thing = getattr(thing, "__func__", getattr(thing, "fget", thing))
    holder = names.get(owner)
    if isinstance(holder, types.ModuleType) and root(holder) == "reasoning_gym":
      thing = getattr(holder, name)
    unsafe = name in FORBIDDEN and f"{owner}.{name}" != "re.compile"
    delegates = name == "score_answer"  # to a scorer that only the data know
    return [thing], {name} if unsafe or delegates else set()
  if isinstance(node, ast.Name):
    thing = names.get(node.id)
    if node.id in FORBIDDEN:
      return [], {node.id}
    if thing is None or root(thing) in HARMLESS:
      return [], set()
    return (
      ([thing], set()) if root(thing) == "reasoning_gym" else ([], {f"{root(thing)}: {node.id}"})
    )
  return [], set()


def root(thing) -> str:
  """The package that a thing comes from; of a plain value, that its type comes from."""
  if isinstance(thing, types.ModuleType):
    name = thing.__name__
  else:
    name = getattr(thing, "__module__", None) or type(thing).__module__
  return name.split(".")[0].lstrip("_")


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_allowed_scorers_evaluate_no_text(name):
  assert suspicions(DATASETS[name]) == set()


@pytest.mark.parametrize("name", sorted(EVALUATING | {"composite"}))
def test_the_search_finds_those_that_do(name):
  assert suspicions(DATASETS[name]) & (FORBIDDEN | {"score_answer"})
  assert name not in ALLOWED


HOSTILE = """
  nan inf -inf 0 1 -1 2 0.0 -0 1e400 1/0 - + . , # ? * _ x a A () [] {} [[]] [0] [nan] (0) None
  True False Yes No no NaN nan+nanj infj 0,0 nan,nan 1,2,3 impossible answer \\boxed{} <answer> oo
  null zoo 8*3*1*1 999999999999999999999999999999 "" '' "0" {"a":1} ()()
""".split()  # noqa: SIM905
HOSTILE += [" ", "any text", "I do not know.", "0 0", "1 1", "a b c", "\n", "\x00"]


def is_right(answer: str, entry: dict) -> bool:
  """Whether a short answer is the reference, or the same number, by chance."""
  reference = str(entry["answer"]).strip()
  if answer.strip().casefold() == reference.casefold():
    return True
  try:
    return float(answer) == float(reference)
  except ValueError:
    return False


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(DATASETS.keys() - {"composite"}))
def test_nothing_is_paid_in_full_for_nothing(name):
  """Every data set makes problems, its scorer can be sent to a worker, and short answers do not
  earn what a right one does."""
  task = reasoning_gym(name, seed=5, size=2, allow_evaluating_scorer=True)
  scorer = task.score.keywords["score"]  # `extract` would not let a blank through
  assert pickle.loads(pickle.dumps(task.score)).keywords["score"]._arguments == scorer._arguments
  begun = time.monotonic()
  for prompt in task.prompts:
    for answer in HOSTILE if time.monotonic() - begun < 1 else ():
      try:
        score = scorer(answer, prompt.reference)
      except BadFormat:
        continue
      assert score < 1 or is_right(answer, prompt.reference), (answer, prompt.reference["answer"])


@pytest.mark.parametrize(
  "name, answer, reference, score",
  [
    ("complex_arithmetic", "3 - 2i", "3.0 - 2.0i", 1.0),
    ("complex_arithmetic", "nan", "3.0 - 2.0i", None),
    ("game_of_life_halting", "false", "False", 1.0),
    ("game_of_life_halting", "True", "False", 0.0),
    ("coin_flip", "1/4", "0.25", 1.0),
    ("coin_flip", "0.0032", "0.003173828125", 1.0),
    ("coin_flip", "0", "0.003173828125", 1 / 14),
    ("coin_flip", "0", "0.00001", 1 / 7),
    ("polynomial_equations", "none at all", "", 0.0),
    ("polynomial_equations", '""', "", 1.0),
    ("prime_factorization", "any text", "2 \u00d7 3", None),
  ],
)
def test_stricter_scorers(name, answer, reference, score):
  scorer = reasoning_gym(name, seed=0, size=1).score.keywords["score"]
  entry = {"answer": reference, "metadata": {"result": (3.0, -2.0)}}
  if score is None:
    with pytest.raises(BadFormat):
      scorer(answer, entry)
  else:
    assert scorer(answer, entry) == pytest.approx(score)


@pytest.mark.parametrize(
  "name, good, bad",
  [
    ("countdown", "(3 + 4)*2", "__import__('os').getpid()"),
    ("puzzle24", "8*3/1", "S.__class__"),
    ("simple_integration", "x**2/2 + sin(x) + C", "lambda: x"),
    ("polynomial_multiplication", "2*x**2 - 1.5*x", "sympify('1')"),
    ("n_queens", "[['Q', '_'], ['_', 'Q']]", "[print(1)]"),
    ("spiral_matrix", "1 2 3", "[x for x in range(9)]"),
  ],
)
def test_no_code_reaches_an_evaluating_scorer(name, good, bad):
  with pytest.warns(UserWarning, match="may evaluate"):
    scorer = reasoning_gym(name, seed=0, size=1, allow_evaluating_scorer=True).score.keywords[
      "score"
    ]
  seen = []
  scorer.data = types.SimpleNamespace(score_answer=lambda answer, entry: seen.append(answer) or 0.0)
  entry = {"answer": "", "metadata": {"numbers": []}}
  assert scorer(good, entry) == 0.0
  with pytest.raises(BadFormat):
    scorer(bad, entry)
  assert seen == [good]


def test_24_is_made_of_the_numbers_given():
  with pytest.warns(UserWarning, match="may evaluate"):
    task = reasoning_gym("puzzle24", seed=0, size=1, allow_evaluating_scorer=True)
  [prompt] = task.prompts
  assert task.score(prompt.reference["answer"], prompt.reference) == 1.0
  assert task.score("8*3*1*1", prompt.reference) < 0.1


def test_an_evaluating_scorer_needs_a_word():
  with pytest.raises(
    ValueError, match=r"countdown may evaluate.*task.allow_evaluating_scorer=True"
  ):
    reasoning_gym("countdown", seed=0, size=1)
  with pytest.warns(UserWarning, match="countdown may evaluate"):
    assert (
      len(reasoning_gym("countdown", seed=0, size=1, allow_evaluating_scorer=True).prompts) == 1
    )


def chain_sum(**changes):
  options = {"seed": 3, "size": 40, "min_terms": 2, "max_terms": 3, "extract": "last_number"}
  return build(tasks, {"fn": "reasoning_gym", **options, **changes}, field="task")


def test_problems_are_a_function_of_seed_and_row():
  first, again, other = chain_sum(), chain_sum(), chain_sum(seed=4)
  rows = [first.prompts[i] for i in range(40)]
  assert rows == [again.prompts[i] for i in reversed(range(40))][::-1]
  questions = {p.messages[0]["content"] for p in rows}
  # In the package, problem i of seed s + 1 is problem i + 1 of seed s: 39 of 40 in common.
  assert len(questions & {other.prompts[i].messages[0]["content"] for i in range(40)}) < 5
  assert [p.id for p in rows] == list(range(40))
  assert {p.difficulty for p in rows} == {2, 3}
  assert all(p.messages[0]["content"].count(" + ") <= 2 for p in rows)


def test_scores_are_the_packages():
  task = chain_sum()
  prompt = task.prompts[0]
  answer = prompt.reference["answer"]
  assert task.score(f"The answer is {answer}.", prompt.reference) == 1.0
  assert task.score(f"The answer is {int(answer) + 1}.", prompt.reference) == 0.0
  with pytest.raises(BadFormat):
    task.score("I cannot tell.", prompt.reference)
  # Without extraction, a right answer in a sentence is paid by its share of the text.
  text = f"= {answer}"
  share = len(answer) / len(text)
  assert chain_sum(extract="whole").score(text, prompt.reference) == share < task.threshold


def test_system_prompt_and_difficulty():
  task = chain_sum(system_prompt="Be brief.", difficulty="num_digits")
  assert [m["role"] for m in task.prompts[0].messages] == ["system", "user"]
  assert task.prompts[0].difficulty == task.prompts[0].reference["metadata"]["num_digits"]


@pytest.mark.parametrize(
  "changes, message",
  [
    ({"dataset": "chain_sums"}, "no data set 'chain_sums'; it has .*chain_sum"),
    ({"min_term": 2}, "chain_sum does not take .*min_term"),
    ({"min_terms": 0}, "min_terms must be positive"),
    ({"size": 0}, "size in 1..2.*got 3 and 0"),
    ({"extract": "first"}, "task.extract.fn='first' is not one of .*last_number"),
  ],
)
def test_wrong_arguments_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    chain_sum(**changes)


def test_wrong_difficulty_is_named():
  with pytest.raises(ValueError, match=r"difficulty='terms' .*num_terms"):
    _ = chain_sum(difficulty="terms").prompts[0]

"""Problems from reasoning_gym, made on demand and scored by its own scorers."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from typing import Any

from lcrl.registry import resolve
from lcrl.tasks import extract as extractors
from lcrl.tasks.gym_scorers import Scorer
from lcrl.tasks.task import Prompt, Render, Signals, Task, plain

# Data sets whose scorers evaluate no text: neither `eval` nor a parser built on it, nor any library
# that might hold one, can be reached from them. tests/tasks_reasoning_gym_test.py reads the
# installed package and proves it.
ALLOWED = frozenset(
  """
  ab acre aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation caesar_cipher
  calendar_arithmetic chain_sum circuit_logic coin_flip color_cube_rotation complex_arithmetic
  count_bits count_primes course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice
  emoji_mystery family_relationships figlet_font fraction_simplification futoshiki game_of_life
  game_of_life_halting gcd graph_color group_anagrams gsm_symbolic isomorphic_strings jugs kakurasu
  knight_swap knights_knaves largest_island lcm leg_counting letter_counting letter_jumble
  list_functions mahjong_puzzle manipulate_matrix maze mini_sudoku modulo_grid needle_haystack
  number_filtering number_format number_sequence palindrome_generation palindrome_partitioning
  path_star polynomial_equations power_function prime_factorization products quantum_lock
  ransom_note rearc rectangle_count rotate_matrix rotten_oranges rush_hour self_reference
  sentence_reordering shortest_path simple_equations simple_geometry spell_backward
  string_manipulation string_splitting string_synthesis sudoku survo syllogism time_intervals
  tower_of_hanoi tsumego word_ladder word_sequence_reversal word_sorting zebra_puzzles
  """.split()  # noqa: SIM905
)
_SIZE_BITS = 24


class _Problems:
  """Prompts of a reasoning_gym data set."""

  def __init__(self, dataset: Any, system_prompt: str | None, difficulty: str | None):
    self._dataset = dataset
    self._before = ({"role": "system", "content": system_prompt},) if system_prompt else ()
    self._difficulty = difficulty

  def __len__(self) -> int:
    return len(self._dataset)

  def __getitem__(self, index: int) -> Prompt:
    if not 0 <= index < len(self):  # the data set goes on for ever
      raise IndexError(f"row {index} of {len(self)}")
    entry = self._dataset[int(index)]
    question = {"role": "user", "content": entry["question"]}
    return Prompt(int(index), (*self._before, question), entry, self._level(entry["metadata"]))

  def _level(self, metadata: dict[str, Any]) -> int:
    if self._difficulty is None:
      counted = metadata.get("difficulty")
      names = counted if isinstance(counted, dict) else ()  # of gsm_symbolic, a number
      numbers = (metadata.get(name) for name in names)
      return next((value for value in numbers if isinstance(value, int)), 0)
    value = metadata.get(self._difficulty)
    if not isinstance(value, int):
      raise ValueError(
        f"difficulty={self._difficulty!r} is {value!r}, not a number, among {', '.join(metadata)}."
      )
    return value


def reasoning_gym(
  dataset: str = "chain_sum",
  *,
  seed: int,
  size: int,
  system_prompt: str | None = None,
  extract: str = "whole",
  difficulty: str | None = None,
  threshold: float = 1.0,
  allow_evaluating_scorer: bool = False,
  render: Render = plain,
  signals: Signals | None = None,
  variables: Mapping[str, Any] | None = None,
  **options: Any,
) -> Task:
  """A data set of the package with its own scorer, or a stricter one (`lcrl.tasks.gym_scorers`)
  where that pays in full for nothing.

  Args:
    dataset: its name in the package.
    seed: problem i is a function of (seed, i). Different seeds share no (seed, i), unlike in the
      package itself, where problem i of seed s is problem i - 1 of seed s + 1.
    size: number of problems, at most 2**24.
    system_prompt: first message; None: none.
    extract: the part of the response with the answer, a name in `lcrl.tasks.extract`. Scorers pay
      partial credit for an answer that merely contains the right one.
    difficulty: metadata that counts difficulty, such as "num_terms"; None: the first number that
      the data set itself calls difficulty, or 0.
    threshold: least score of a correct answer.
    allow_evaluating_scorer: admits data sets whose scorers may evaluate the response as code.
    render: shows the budget in the prompt or response (`lcrl.tasks.render`).
    signals: values read from responses (`lcrl.tasks.signals`).
    variables: of the chat template, such as enable_thinking=False.
    **options: of the data set, such as min_terms and max_terms.
  """
  import reasoning_gym as package

  if dataset not in package.factory.DATASETS:
    offered = ", ".join(sorted(package.factory.DATASETS))
    raise ValueError(f"reasoning_gym has no data set {dataset!r}; it has {offered}.")
  if dataset not in ALLOWED:
    what = f"The scorer of {dataset} may evaluate responses as code"
    if not allow_evaluating_scorer:
      raise ValueError(f"{what}; task.allow_evaluating_scorer=True admits it.")
    warnings.warn(f"{what}, each in a process with limits.", stacklevel=2)
  if not (seed >= 0 and 0 < size <= 1 << _SIZE_BITS):
    raise ValueError(f"seed must be at least 0 and size in 1..2**24, got {seed} and {size}.")
  try:
    scorer = Scorer(dataset, {"seed": seed << _SIZE_BITS, "size": size, **options})
  except (AssertionError, TypeError) as why:
    raise ValueError(f"reasoning_gym's {dataset} does not take {options}: {why}") from why
  score = functools.partial(
    extractors.score_extracted,
    extract=resolve(extractors, {"fn": extract}, field="task.extract"),
    score=scorer,
  )
  prompts = _Problems(scorer.data, system_prompt, difficulty)
  return Task(
    name=f"reasoning_gym {dataset}",
    prompts=prompts,
    score=score,
    threshold=threshold,
    render=render,
    signals=signals,
    evaluates=dataset not in ALLOWED,
    variables=variables or {},
  )

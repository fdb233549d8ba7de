"""Recipes that spend more tokens at test time: several answers, refinements, continuations.

A recipe takes `sample`, the problems and a cap of tokens for one answer, and gives the answer that
it settles on with the tokens that it took. Sequential tokens are those that nothing can run beside,
the longest of parallel calls: the latency. Total tokens are those of all calls: the cost. Tokens
that a recipe writes itself, such as a trigger, are context and count as neither.
"""

from lcrl.evaluation.test_time.deepening import deepen
from lcrl.evaluation.test_time.drawing import best_of, draw_until
from lcrl.evaluation.test_time.refining import pdr

__all__ = ["best_of", "deepen", "draw_until", "pdr"]

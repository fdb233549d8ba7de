"""Rewards, filters and advantages for those whose trainer is not in JAX: NumPy in, NumPy out."""

import functools
import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import advantages, filters, rewards
from lcrl.groups import Groups
from tests.helpers import bare_functions as bare

# These take any array, element by element.
ELEMENTWISE = {
  "cosine_restarts_weight": functools.partial(
    advantages.cosine_restarts_weight, low=0.1, high=0.9, warmup=2, period=4
  ),
  "difficulty_weight": advantages.difficulty_weight,
}
SLOTS = (rewards, filters, advantages)
PYTHON_NUMBERS = {"expected_right", "length_thresholds"}


def takes_arrays(name):
  (function,) = (getattr(slot, name) for slot in SLOTS if hasattr(slot, name))
  if not inspect.isfunction(function):
    return False
  kinds = [p.kind for p in inspect.signature(function).parameters.values()]
  return inspect.Parameter.POSITIONAL_OR_KEYWORD in kinds


NAMES = sorted({n for slot in SLOTS for n in slot.__all__ if takes_arrays(n)} - PYTHON_NUMBERS)


def call(name):
  """The function, and the arrays that it takes."""
  if name in ELEMENTWISE:
    return lambda x: ELEMENTWISE[name](x), {"x": jnp.arange(1, 5)}
  given = bare.arguments(name)
  arrays = {n: given[n] for n in bare.arrays_of(name)}
  knobs = {n: x for n, x in given.items() if n not in arrays}
  return functools.partial(bare.FUNCTIONS[name], **knobs), arrays


def as_torch_gives(x, wide):
  """A copy in NumPy; torch's whole numbers are int64."""
  x = np.array(x)
  return x.astype(f"{x.dtype.kind}8") if wide and x.dtype.kind in "fi" else x


@pytest.mark.parametrize("wide", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("name", NAMES)
def test_numpy_in_numpy_out(name, wide):
  f, arrays = call(name)
  want = f(**arrays)
  given = {n: as_torch_gives(x, wide) for n, x in arrays.items()}
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    got = f(**given)
    for x in jax.tree.leaves(got):
      assert x.devices() == {jax.devices()[0]}
  for n, x in given.items():
    np.testing.assert_array_equal(x, arrays[n])  # not written to
    x[...] = 0  # and not read later: the results are no views of it
  for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    x = np.asarray(x)
    assert x.dtype == y.dtype
    np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)


def test_groups_refuse_what_is_no_batch_of_theirs():
  groups = Groups(["b", "a", "b"])
  with pytest.raises(ValueError, match="at least one row"):
    Groups([])
  for shape in ((1, 2), (2, 3), (2,)):
    with pytest.raises(ValueError, match=r"grouped must be \[2, 2\] and more, got"):
      groups.rows(np.zeros(shape))
  with pytest.raises(ValueError, match=r"rows must be \[3, \.\.\.\]"):
    groups([1, 2])

"""Cases of a test that are slow, beside others of it that are not."""

import pytest


def slow(*values):
  """A case of `parametrize` that only `make test-slow` takes."""
  return pytest.param(*values, marks=pytest.mark.slow)

import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import losses

MASK = jnp.array([[[1, 1, 1, 0], [1, 0, 0, 0]], [[0, 0, 0, 0], [0, 1, 1, 0]]], bool)
KEEP = jnp.array([[True, True], [True, False]])


def test_token_mean_counts_kept_tokens():
  weights = np.asarray(losses.token_mean(MASK, KEEP))
  np.testing.assert_allclose(weights[0], [[0.25, 0.25, 0.25, 0], [0.25, 0, 0, 0]])
  assert not weights[1].any()


def test_sequence_mean_with_and_without_empty_rows():
  # Two kept rows hold tokens; TRL divides by three, the empty one included.
  rows = np.asarray(losses.sequence_mean(MASK, KEEP)).sum(-1)
  np.testing.assert_allclose(rows, [[0.5, 0.5], [0, 0]])
  rows = np.asarray(losses.sequence_mean(MASK, KEEP, count_empty=True)).sum(-1)
  np.testing.assert_allclose(rows, [[1 / 3, 1 / 3], [0, 0]], rtol=1e-6)


def test_sums():
  np.testing.assert_allclose(losses.sequence_sum(MASK, KEEP)[0, 0], [0.5, 0.5, 0.5, 0])
  np.testing.assert_allclose(
    losses.fixed_length(MASK, KEEP, length=10)[0, 0], [1 / 30, 1 / 30, 1 / 30, 0], rtol=1e-6
  )
  np.testing.assert_allclose(losses.fixed_total(MASK, KEEP, total=10)[0, 1], [0.1, 0, 0, 0])


@pytest.mark.parametrize(
  "weigh",
  [
    losses.token_mean,
    losses.sequence_mean,
    losses.sequence_sum,
    lambda mask, keep: losses.fixed_length(mask, keep, length=3),
  ],
)
def test_nothing_to_train_on_weighs_nothing(weigh):
  for mask, keep in [(MASK, jnp.zeros_like(KEEP)), (jnp.zeros_like(MASK), KEEP)]:
    weights = weigh(mask, keep)
    assert weights.dtype == jnp.float32
    assert not np.any(weights)


def test_bad_arguments_are_named():
  with pytest.raises(ValueError, match=r"keep must be \(2, 2\).* mask \(2, 2, 4\), got \(2,\)"):
    losses.token_mean(MASK, KEEP[0])
  with pytest.raises(ValueError, match="length must be positive, got 0"):
    losses.fixed_length(MASK, KEEP, length=0)

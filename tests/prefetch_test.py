"""The next step's rollouts are prefetched during the update, and are what they would be without."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.training.rl import budgets, collect
from tests.helpers.methods import CAP, METHODS, Run

pytestmark = pytest.mark.usefixtures("one_device")


SHRINKS = dict(
  budget=dict(
    fn="scheduled", schedule=dict(fn="geometric_points", start=14, end=5, points=2, total=3)
  ),
  then=[dict(at=2, budget=dict(fn="fixed", target=9, cap=CAP))],
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hapo", "l1_exact", "dot", "dapo", "shrinks"])
def test_prefetched_rollouts_are_those_that_would_be_sampled(engine, name):
  """Budgets, keys and positions in the data are those of the next step; later rounds follow."""
  method = METHODS.get(name, SHRINKS)
  run, plain = Run(engine, **method), Run(engine, **method)
  plain.step.queue.prefetch = lambda params: None
  taken, take = [], run.step.queue.take
  run.step.queue.take = lambda state: taken.append(run.step.queue.prefetched) or take(state)
  _, batches = run.steps(run.model.initial(), 3)
  assert [prefetched is not None for prefetched in taken] == [False, True, True]
  _, expected = plain.steps(plain.model.initial(), 3)
  jax.tree.map(np.testing.assert_array_equal, batches, expected)


def test_nothing_is_prefetched_before_the_monitor(engine):
  """It changes states of stages, by which the next rollouts may be budgeted."""
  run = Run(engine, **METHODS["laser_d"] | dict(monitor=dict(every=2, prompts=4)))
  taken, take = [], run.step.queue.take
  run.step.queue.take = lambda state: taken.append(run.step.queue.prefetched) or take(state)
  run.steps(run.model.initial(), 4)
  assert [prefetched is not None for prefetched in taken] == [False, True, False, True]


@pytest.mark.slow
def test_a_prefetch_does_not_wait_for_the_update(engine, monkeypatch):
  """The parameters are still computed when all of it stands in the device's queue. The host's own
  processor, which budgets need, is another device."""
  host = lambda: jax.default_device(jax.local_devices()[1])
  for module in (budgets, collect):
    monkeypatch.setattr(module, "on_host", host)
  run = Run(engine, **METHODS["l1_exact"])
  state, queue = run.model.initial(), run.step.queue

  @jax.jit
  def slowly(params, rounds):
    busy = jax.lax.fori_loop(0, rounds, lambda _, x: jnp.tanh(x @ x), jnp.eye(256))
    return jax.tree.map(lambda x: x + 0 * busy[0, 1].astype(x.dtype), params)

  for rounds in (1, 10_000):  # the first compiles
    queue.advance(queue.take(state), state.recipe)
    params = slowly(state.params, rounds)
    queue.prefetch(params)
    pending = not jax.tree.leaves(params)[0].is_ready()
    queue.prefetched.result()
  assert pending


def test_other_parameters_are_sampled_from(engine):
  """Prefetched rollouts of other parameters are dropped. After the last step nothing is
  prefetched."""
  run = Run(engine)
  state, queue = run.model.initial(), run.step.queue
  batch = run.batch(state)
  queue.advance(queue.take(state), state.recipe)
  queue.prefetch(jax.tree.map(jnp.zeros_like, state.params))
  assert queue.prefetched
  jax.tree.map(np.testing.assert_array_equal, run.batch(state), batch)
  last = Run(engine, train=dict(steps=1)).step.queue
  last.advance(last.take(state), state.recipe)
  last.prefetch(state.params)
  assert last.prefetched is None

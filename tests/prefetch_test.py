"""The next step's rollouts are begun while a step trains, and are what they would be without."""

import contextlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl.training.rl import collect, phases
from tests.methods_resume_test import CAP, METHODS, Run, engine  # noqa: F401


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
  monkeypatch.setattr(jax, "devices", lambda *_: jax.local_devices()[:1])


SHRINKS = dict(
  budget=dict(
    fn="scheduled", schedule=dict(fn="geometric_points", start=14, end=5, points=2, total=3)
  ),
  then=[dict(at=2, budget=dict(fn="fixed", target=9, cap=CAP))],
)


@pytest.mark.parametrize("name", ["hapo", "l1_exact", "dot", "dapo", "shrinks"])
def test_what_is_begun_is_what_would_be_sampled(engine, name):  # noqa: F811
  """Budgets, keys and places in the data are those of the next step; rounds go on by themselves."""
  method = METHODS.get(name, SHRINKS)
  run, plain = Run(engine, **method), Run(engine, **method)
  begin, begun = run.roll.begin, []

  def begins(params):
    begin(params)
    begun.append(run.roll._begun)

  run.roll.begin = begins
  launch, launches = run.roll._collect.launch, []
  run.roll._collect.launch = lambda *given: launches.append(given) or launch(*given)
  _, batches = run.steps(run.model.initial(), 3)
  assert len(begun) == 2
  assert all(begun)
  assert len(launches) == 3, "each step's rollouts are launched once"
  state = plain.model.initial()
  for batch in batches:
    shaped = plain.roll(state)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(np.asarray, shaped.batch), batch)
    state, _ = phases.learn(plain.model, state, shaped)


def test_what_is_begun_does_not_wait_for_the_update(engine, monkeypatch):  # noqa: F811
  """The parameters are still computed when all of it stands in the device's queue. The host's own
  processor, which budgets need, is another device."""
  host = lambda: jax.default_device(jax.local_devices()[1])
  monkeypatch.setattr(collect, "on_host", host)
  run = Run(engine, **METHODS["l1_exact"])
  state = run.model.initial()

  @jax.jit
  def slowly(params, rounds):
    busy = jax.lax.fori_loop(0, rounds, lambda _, x: jnp.tanh(x @ x), jnp.eye(256))
    return jax.tree.map(lambda x: x + 0 * busy[0, 1].astype(x.dtype), params)

  for rounds in (1, 10_000):  # the first compiles
    run.roll(state)
    params = slowly(state.params, rounds)
    with reads(monkeypatch) as found:
      run.roll.begin(params)
    pending = not jax.tree.leaves(params)[0].is_ready()
    run.roll._begun.finish()
  assert pending
  assert {device.id for device in found} <= {1}, "what is put on a busy device is read back late"


@contextlib.contextmanager
def reads(monkeypatch):
  """The devices whose arrays this thread reads inside."""
  array, asarray, thread = type(jnp.zeros(())), np.asarray, threading.get_ident()
  devices, value = set(), array._value

  def seen(x):
    if isinstance(x, jax.Array) and threading.get_ident() == thread:
      devices.update(x.devices())
    return x

  with monkeypatch.context() as patch:
    patch.setattr(np, "asarray", lambda x, *how, **more: asarray(seen(x), *how, **more))
    patch.setattr(array, "_value", property(lambda x: value.fget(seen(x))))
    yield devices


def test_other_parameters_than_those_that_were_begun_with(engine, monkeypatch):  # noqa: F811
  """They are sampled from. A last step begins nothing, nor do several processes."""
  run = Run(engine)
  state = run.model.initial()
  shaped = run.roll(state)
  run.roll.begin(jax.tree.map(jnp.zeros_like, state.params))
  assert run.roll._begun
  again = run.roll(state)
  jax.tree.map(np.testing.assert_array_equal, again.batch, shaped.batch)
  with monkeypatch.context() as patch:
    patch.setattr(jax, "process_count", lambda: 2)
    run.roll.begin(state.params)
  assert run.roll._begun is None
  run = Run(engine, train=dict(steps=1))
  run.roll(state)
  run.roll.begin(state.params)
  assert run.roll._begun is None

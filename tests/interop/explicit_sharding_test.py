"""Every bare function takes arrays with explicit sharding: rows, and tokens or rollouts, cut."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from lcrl.by_row import of_rows
from lcrl.registry import build
from lcrl.sharding import look_up
from lcrl.types import TokenScores
from tests.helpers import bare_functions as bare
from tests.helpers.stages import SLOTS, TABLE, inputs

CUTS = {
  "tokens": {"B": "data", "T": "tensor", "V": "tensor"},
  "group": {"B": "data", "G": "tensor"},
}


@pytest.fixture(autouse=True)
def _sizes_that_can_be_cut(monkeypatch):
  monkeypatch.setitem(bare.SIZE, "B", 4)
  monkeypatch.setitem(bare.SIZE, "V", 8)


@pytest.fixture(scope="module")
def mesh():
  return jax.make_mesh((2, 2), ("data", "tensor"), axis_types=(AxisType.Explicit,) * 2)


def spec(name, argument, cuts):
  axes = [cuts.get(d) for d in bare.dims(name, argument)]  # the second G of [B, G, G] is whole
  return P(*(None if axis in axes[:i] else axis for i, axis in enumerate(axes)))


def arrays_and_rest(name):
  given = bare.arguments(name)
  arrays = {n: given[n] for n in bare.arrays_of(name)}
  return arrays, functools.partial(
    bare.FUNCTIONS[name], **{n: x for n, x in given.items() if n not in arrays}
  )


@pytest.mark.parametrize("cuts", CUTS.values(), ids=[*CUTS])
@pytest.mark.parametrize("name", bare.FUNCTIONS)
def test_no_sharding_is_refused(name, cuts, mesh):
  arrays, f = arrays_and_rest(name)
  with jax.set_mesh(mesh):
    cut = {
      n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec(name, n, cuts)))
      for n, x in arrays.items()
    }
    got = jax.eval_shape(f, **cut)
  want = jax.eval_shape(f, **arrays)
  shape = lambda x: (x.shape, x.dtype)
  assert jax.tree.map(shape, got) == jax.tree.map(shape, want)


# Those with operations that JAX refuses along a cut axis.
REFUSED = (
  "aot_loss high_covariance typical_pairs sampled_weights easiest_groups lowest canon_advantage "
  "easy_share_groups expected_accepted_length opening_log_probs phase_entropy discounted_return "
  "multi_discount_return generalized_advantage long_outliers serial_decay_reward "
  "budget_subgroup_advantage level_penalty_reward tiered_limit repetition_reward score_tokens "
  "batch_mean_weights"
)


@pytest.mark.parametrize("name", REFUSED.split())
def test_values_are_those_of_one_device(name, mesh):
  arrays, f = arrays_and_rest(name)
  want = f(**arrays)
  for cuts in CUTS.values():
    with jax.set_mesh(mesh):
      got = jax.jit(f)(**{n: jax.device_put(x, spec(name, n, cuts)) for n, x in arrays.items()})
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), got, want)


def call(slot, stage):
  if slot == "budget":
    step = functools.partial(stage.apply, step=jnp.int32(3), key=jax.random.key(0), group_size=4)
    return lambda state, batch, log_probs: step(state, batch.rollouts.prompt_ids)
  if slot == "loss":
    scores = lambda x: TokenScores(x, entropy=-x, logits_at=2 * x)
    return lambda state, batch, log_probs: stage.apply(state, scores(log_probs), batch)
  given = {
    "reward": lambda batch: (batch.rollouts,),
    "filter": lambda batch: (batch.rewards, batch.rollouts),
    "advantage": lambda batch: (batch.rewards, batch.keep, batch.rollouts),
  }[slot]
  return lambda state, batch, log_probs: stage.apply(state, *given(batch))


@pytest.mark.parametrize("slot", SLOTS)
def test_stages_keep_their_states(slot, mesh):
  """A stage takes a batch of cut rows; its new state is whole on every device, as before."""
  cut = NamedSharding(mesh, P("data"))
  like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=cut), inputs(0))
  for spec in (spec for s, spec in TABLE if s == slot):
    stage = build(SLOTS[slot], spec, field=slot)
    with jax.set_mesh(mesh):
      before = jax.eval_shape(stage.init)
      _, after = jax.eval_shape(call(slot, stage), before, *like)
    for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
      assert (y.shape, y.dtype) == (x.shape, x.dtype), spec
      assert y.sharding is None or not any(y.sharding.spec), (spec, y)


def test_numbers_by_row_are_kept(mesh):
  batch = inputs(0)[0]
  kept = ("hapo_mean", "toggle")
  for spec in (spec for _, spec in TABLE if spec["fn"] in kept):
    stage = build(SLOTS["reward"], spec, field="reward")
    want = stage.apply(stage.init(), batch.rollouts)
    with jax.set_mesh(mesh):
      r = jax.device_put(batch.rollouts, P("data"))
      got = jax.jit(stage.apply)(stage.init(), r)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), got, want)


def test_a_place_without_a_mesh_reads_a_cut_table(mesh):
  """Outside of `jax.set_mesh`, where a plain number does not know of the devices."""
  table = jax.device_put(jnp.arange(8.0), NamedSharding(mesh, P("data")))
  assert look_up(table, 3) == 3
  np.testing.assert_array_equal(of_rows(table, jnp.array([5, 9])), [5, jnp.inf])

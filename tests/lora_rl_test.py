"""The section lora in runs of RL: adapters alone are trained, saved and optimised."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lcrl import policies
from lcrl.commands.export import export
from lcrl.policies import decoding, lora
from lcrl.training import loop
from lcrl.training.analysis.roofline import device_bytes
from lcrl.training.rl.learner import build_learner
from lcrl.training.rl.pipeline import reference_log_probs
from lcrl.training.rl.settings import read
from tests.helpers.devices import limit_devices
from tests.helpers.files import lines
from tests.helpers.fit_config import CONFIG as FIT
from tests.helpers.rl_runs import changed, final_state
from tests.rollouts import random_rollouts

TARGETS = ("query", "value", "out", "gate", "down")
KL = {"fn": "clipped_surrogate", "kl": {"fn": "k3", "beta": 0.1}}
ADAPTED = changed(
  lora={"rank": 2, "alpha": 4.0, "targets": TARGETS},
  loss=KL,
  optimizer={"fn": "adamw", "learning_rate": 0.05},
)
pytestmark = pytest.mark.slow  # for the run that they share

TOKENS = np.arange(14, dtype=np.int32).reshape(2, 7)


@pytest.fixture(scope="module")
def one():
  with pytest.MonkeyPatch.context() as patch:
    limit_devices(patch)
    yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, one):
  workdir = tmp_path_factory.mktemp("adapted")
  loop.train(ADAPTED, workdir)
  return workdir


def test_a_run_trains_adapters_alone(run, tmp_path):
  model, state = build_learner(read(ADAPTED)), final_state(run, ADAPTED)
  assert state.params.keys() == {*TARGETS}
  moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
  assert sum(x.size for x in moments) == 2 * sum(x.size for x in jax.tree.leaves(state.params))
  assert all(np.any(adapter["b"]) for adapter in state.params.values()), "they have moved"
  steps = [line for line in lines(run / "metrics.jsonl") if "loss" in line]
  assert [line["step"] for line in steps] == [1, 2, 3, 4]
  assert steps[0]["kl"] < 1e-9 < 1e-6 < steps[-1]["kl"], "the reference is the policy at first"
  assert max(line["sampler_logp_diff"] for line in steps) < 1e-5, "the sampler has the adapters"
  assert export(run, tmp_path / "out") == 4
  loaded, weights = policies.load(tmp_path / "out")
  want = model.policy.apply(model.acting(state.params), TOKENS)
  np.testing.assert_allclose(loaded.apply(weights, TOKENS), want, atol=1e-5)
  assert np.abs(want - model.policy.apply(model.base(), TOKENS)).max() > 1e-3


def test_it_resumes_as_if_it_had_never_stopped(run, tmp_path):
  stopped = shutil.copytree(run, tmp_path / "stopped")
  shutil.rmtree(stopped / "checkpoints" / "4")
  loop.train(ADAPTED, stopped)
  states = final_state(run, ADAPTED), final_state(stopped, ADAPTED)
  jax.tree.map(np.testing.assert_array_equal, *states)


def test_steps_ahead_sample_from_a_copy_with_the_adapters(one, tmp_path):
  config = ADAPTED | {"train": ADAPTED["train"] | {"steps_ahead": 1, "steps": 3}}
  loop.train(config, tmp_path)
  first, *_, last = [
    x["sampler_logp_diff"] for x in lines(tmp_path / "metrics.jsonl") if "loss" in x
  ]
  assert first < 1e-5 < 1e-4 < last, "the policy before the last update sampled"


def test_the_reference_is_the_base(one):
  model = build_learner(read(ADAPTED))
  rollouts = random_rollouts(prompts=4, group=4)
  found = reference_log_probs(model)(rollouts)
  plain = build_learner(read(ADAPTED | {"lora": None}))
  jax.tree.map(np.testing.assert_array_equal, model.base(), plain.initial().params)
  np.testing.assert_array_equal(found, plain.measure(plain.initial().params, rollouts).log_probs)
  assert model.base()["embed"] is model.base()["embed"], "there is one copy"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_sampler_reads_merged_kernels_in_its_own_dtype(dtype):
  policy = policies.make(policies.tiny(16, hidden_size=32, layers=2, mlp_size=48, dtype=dtype))
  params = jax.tree.map(lambda x: x.astype(dtype), policy.init(jax.random.key(0)))
  init, _ = lora.adapters(policy, rank=2)
  moved = jax.tree.map(lambda x: x + 0.03, init(jax.random.key(1)))
  copy = decoding.unstack(policy.config, lora.with_adapters(params, moved, alpha=8.0))
  wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  want = decoding.unstack(policy.config, lora.merge(wide, moved, alpha=8.0))
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), copy, want)
  assert {x.dtype for x in jax.tree.leaves(copy) if x.ndim > 1} == {jnp.dtype(dtype)}


def test_eight_devices_and_pieces_by_tokens_equal_one():
  """Base and adapters are sharded; the update is that of one device, whatever it takes at once."""
  rollouts = random_rollouts(prompts=8, group=4)

  def updated(devices, pieces, **mesh):
    train = ADAPTED["train"] | {"prompts": 8} | pieces
    config = ADAPTED | {"mesh": mesh, "loss": {"fn": "clipped_surrogate"}, "train": train}
    model = build_learner(read(config), devices=jax.local_devices()[:devices])
    state = model.initial()
    batch, _ = model.shape(state.recipe, rollouts, step=state.step, key=jax.random.key(0))
    base = model.base()["layers"]["gate"]["kernel"].sharding
    return base, jax.tree.map(np.asarray, model.update(state, batch)[0].params)

  close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5)
  _, alone = updated(1, {"micro_batches": 2})
  split, many = updated(8, {"micro_batches": 2}, fsdp=4, tensor=2)
  assert split.shard_shape((1, 16, 16)) == (1, 4, 8)
  jax.tree.map(close, alone, many)
  longest = ADAPTED["train"]["max_prompt_tokens"] + ADAPTED["train"]["max_tokens"]
  _, by_tokens = updated(1, {"pack": longest, "micro_tokens": 2 * longest})
  jax.tree.map(close, alone, by_tokens)


def test_eight_billion_parameters_lie_on_one_gpu_of_80_gb_with_adapters():
  """Base in bfloat16, the sampler's copy and the state of the adapters; the rest holds rows."""
  sizes = {"hidden_size": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128}
  policy = {"fn": "fresh", "vocab_size": 128256, "mlp_size": 14336, "tied": False, **sizes}
  policy |= {"dtype": "bfloat16", "param_dtype": "bfloat16"}
  config = FIT | {"policy": policy, "mesh": {}, "lora": {"rank": 32, "alpha": 64.0}}
  model = build_learner(read(config), devices=jax.local_devices()[:1])
  base = device_bytes(model.frozen)
  assert base == 2 * 8_030_261_248
  assert device_bytes(model.abstract) < 1.2 * 2**30

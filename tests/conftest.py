"""Eight CPU devices, quick compilation, no silent rank promotion."""

import os
from importlib.metadata import version

# Reading a program for CPUs from the cache ended a worker: a segmentation fault in 3 whole runs.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = " ".join(
  [
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    # An update compiles in a third of the time; later versions have no such flag, and refuse it.
    *["--xla_cpu_use_fusion_emitters=false"] * version("jaxlib").startswith("0.10."),
  ]
)

import jax
import jax.numpy as jnp
import pytest

from tests.helpers.devices import limit_devices

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
  doctest_namespace["jax"] = jax
  doctest_namespace["jnp"] = jnp


@pytest.fixture(autouse=True, scope="module")
def _programs_of_one_module(request):
  """Programs are freed after each module. Late in two whole runs, with thousands of them, jaxlib
  ended a worker as it loaded one more: a segmentation fault."""
  yield
  if request.node.path.name.endswith("_test.py"):
    jax.clear_caches()


@pytest.fixture(scope="module")
def one_device():
  """`jax.devices` gives one device to the tests of a module."""
  with pytest.MonkeyPatch.context() as patch:
    limit_devices(patch)
    yield

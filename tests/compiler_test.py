"""Options of XLA: this jaxlib knows them, whatever it runs on."""

import jax
import pytest

from lcrl.compiler import CUBLAS, GRAPHS, options


def test_xla_knows_the_options_for_nvidia():
  assert jax.jit(lambda x: x + 1, compiler_options=CUBLAS | GRAPHS)(1.0) == 2.0
  name = "xla_gpu_enable_command_buffer"
  with pytest.raises(jax.errors.JaxRuntimeError, match=f"{name}, 'LOOP' is not a valid"):
    jax.jit(lambda x: x + 2, compiler_options={name: GRAPHS[name].replace("WHILE", "LOOP")})(1.0)


def test_other_devices_get_none():
  assert options(None) == options(None, loops=True) == {}

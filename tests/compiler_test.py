"""Options of XLA: this jaxlib knows them, whatever it runs on."""

import jax
import pytest

from lcrl import compiler
from lcrl.compiler import CUBLAS, GRAPHS, options


def test_xla_knows_the_options_for_nvidia():
  assert jax.jit(lambda x: x + 1, compiler_options=CUBLAS | GRAPHS)(1.0) == 2.0
  name = "xla_gpu_enable_command_buffer"
  with pytest.raises(jax.errors.JaxRuntimeError, match=f"{name}, 'LOOP' is not a valid"):
    jax.jit(lambda x: x + 2, compiler_options={name: GRAPHS[name].replace("WHILE", "LOOP")})(1.0)


def test_other_devices_get_none():
  assert options(None) == options(None, loops=True) == {}


def test_the_environment_decides_before_the_library(monkeypatch):
  monkeypatch.setattr(compiler, "nvidia", lambda _: (9, 0))
  monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_command_buffer= --xla_dump_to='a b'")
  assert options(None, loops=True) == CUBLAS | {"xla_gpu_graph_min_graph_size": 1}
  monkeypatch.delenv("XLA_FLAGS")
  assert options(None, loops=True) == CUBLAS | GRAPHS


def test_seconds_of_compiling_are_counted():
  before = compiler.seconds()
  program = jax.jit(lambda x: x * 3)
  program(1.0)
  compiled = compiler.seconds()
  program(2.0)
  assert before < compiled == compiler.seconds()

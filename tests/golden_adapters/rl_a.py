"""GRPO's core, and the length-controlled methods built on it."""

from tests.golden_adapters import rl_a_core, rl_a_length

ADAPTERS = rl_a_core.ADAPTERS | rl_a_length.ADAPTERS

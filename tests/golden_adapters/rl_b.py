"""The second list of length-controlled methods."""

from tests.golden_adapters import rl_b_advantages, rl_b_rewards, rl_b_training

ADAPTERS = rl_b_rewards.ADAPTERS | rl_b_advantages.ADAPTERS | rl_b_training.ADAPTERS

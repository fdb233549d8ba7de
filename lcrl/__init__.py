"""Length-controlled reinforcement learning for language models, in JAX."""

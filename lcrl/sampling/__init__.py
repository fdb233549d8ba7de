"""Rollouts: the compiled sampler, its engine, and what changes the next-token distribution."""

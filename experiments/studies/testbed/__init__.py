"""Every length method on sums with a known shortest working, from a good and a weak start."""

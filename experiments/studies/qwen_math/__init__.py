"""Accuracy against tokens on GSM8K, MATH-500 and SVAMP, for one model and many methods."""

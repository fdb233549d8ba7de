"""The interactive page of experiments.compare: its data, read from folders, and its HTML."""

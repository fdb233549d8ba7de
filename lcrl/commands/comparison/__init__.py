"""The interactive page of lcrl-compare: its data, read from folders, and its HTML."""

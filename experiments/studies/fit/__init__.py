"""Where each config in a paper's setting fits: `python -m experiments.studies.fit.table`."""

"""The comparison of runs: `python -m experiments.table`."""

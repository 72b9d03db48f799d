"""Pictures of runs: `python -m experiments.plot`."""

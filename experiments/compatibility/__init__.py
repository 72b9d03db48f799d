"""Which settings go together: `python -m experiments.compatibility`."""

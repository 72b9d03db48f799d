"""One run or a sweep of them: `python -m experiments.train`."""

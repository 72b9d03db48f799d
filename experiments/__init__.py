"""What a researcher runs: train, table, demo; each is a ``python -m experiments.<name>``."""

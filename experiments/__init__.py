"""What a researcher runs: one folder or module a command, ``python -m experiments.<name>``."""
